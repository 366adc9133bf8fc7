"""Answers agree with a reader that sees only the annotation files; guessing does not pay."""

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from data_pipeline.toy_world.world import CELLS, COLOURS, HELD_OUT_PAIRS, SHAPES

NUMBERS = {"two": 2, "three": 3}


def read(path):
    return json.loads(path.read_text())


def read_truth(folder):
    """image id -> [(size, colour, shape, column, row)], from the Visual Genome files alone."""
    sizes = {row["image_id"]: row for row in read(folder / "image_data.json")}
    truth = {}
    for row in read(folder / "attributes.json"):
        picture = sizes[row["image_id"]]
        truth[row["image_id"]] = [
            (
                *thing["attributes"],
                thing["names"][0],
                int((thing["x"] + thing["w"] / 2) * 2 / picture["width"]),
                int((thing["y"] + thing["h"] / 2) * 2 / picture["height"]),
            )
            for thing in row["attributes"]
        ]
    return truth


def find(things, phrase):
    """The things that a phrase such as "small red circle in the top left" fits."""
    noun, _, cell = phrase.partition(" in the ")
    words = [word.removesuffix("s") if word != "cross" else word for word in noun.split()]
    words = ["cross" if word in ("crosse", "cros") else word for word in words]
    fitting = []
    for size, colour, shape, column, row in things:
        known = {size, colour, shape, "object"}
        if set(words) <= known and (not cell or CELLS[2 * row + column] == cell):
            fitting.append((size, colour, shape, column, row))
    return fitting


def only(things, phrase):
    (thing,) = find(things, phrase)
    return thing


def answer(things, question):
    """The true answer; fails where the question does not single out what it asks for."""
    if match := re.fullmatch(r"What color is the (.+)\?", question):
        return only(things, match[1])[1]
    if match := re.fullmatch(r"What shape is the (.+)\?", question):
        return only(things, match[1])[2]
    if match := re.fullmatch(r"What size is the (.+)\?", question):
        return only(things, match[1])[0]
    if match := re.fullmatch(r"Where is the (.+)\?", question):
        *_, column, row = only(things, match[1])
        return CELLS[2 * row + column]
    if match := re.fullmatch(r"How many (.+) are there\?", question):
        return str(len(find(things, match[1])))
    if match := re.fullmatch(r"Is there an? (.+) in the image\?", question):
        return "yes" if find(things, match[1]) else "no"
    if match := re.fullmatch(r"Are there (\w+) (.+) in the image\?", question):
        return "yes" if len(find(things, match[2])) == NUMBERS[match[1]] else "no"
    match = re.fullmatch(r"Is the (.+) (to the left of|above) the (.+)\?", question)
    axis = 3 if match[2] == "to the left of" else 4
    one, other = only(things, match[1])[axis], only(things, match[3])[axis]
    assert one != other, question
    return "yes" if one < other else "no"


def vqa_rows(folder):
    """(image id, kind, question, answer, novel) of a VQAv2 folder."""
    questions = read(folder / "questions.json")["questions"]
    answers = {a["question_id"]: a for a in read(folder / "annotations.json")["annotations"]}
    assert len(answers) == len(questions)
    return [
        (
            q["image_id"],
            answers[q["question_id"]]["question_type"],
            q["question"],
            answers[q["question_id"]]["multiple_choice_answer"],
            q["novel_combination"],
        )
        for q in questions
    ]


def gqa_rows(folder):
    return [
        (
            int(q["imageId"]),
            q["types"]["detailed"],
            q["question"],
            q["answer"],
            q["novel_combination"],
        )
        for q in read(folder / "questions.json").values()
    ]


def pope_rows(folder):
    lines = (folder / "coco_pope_random.json").read_text().splitlines()
    return [
        (
            int(re.fullmatch(r"VG_100K/(\d+)\.jpg", row["image"])[1]),
            row["kind"],
            row["text"],
            row["label"],
            row["novel_combination"],
        )
        for row in map(json.loads, lines)
    ]


def mme_rows(folder):
    rows = []
    for subtask in ("existence", "count", "position", "color"):
        for path in sorted((folder / subtask).glob("*.txt")):
            lines = path.read_text().splitlines()
            assert path.with_suffix(".jpg").exists()
            assert sorted(line.split("\t")[1] for line in lines) == ["No", "Yes"]
            for line in lines:
                text, label = line.split("\t")
                question = text.removesuffix(" Please answer yes or no.")
                assert question != text
                rows.append((int(path.stem), f"mme {subtask}", question, label.lower(), None))
    return rows


def textvqa_rows(folder):
    rows = json.loads((folder / "TextVQA_0.5.1_val.json").read_text())["data"]
    return [
        (int(r["image_id"]), r["kind"], r["question"], answer_of(r["answers"]), None) for r in rows
    ]


def vizwiz_rows(folder):
    rows = json.loads((folder / "val.json").read_text())
    return [
        (
            int(r["image"].split("/")[1].removesuffix(".jpg")),
            r["kind"],
            r["question"],
            answer_of([given["answer"] for given in r["answers"]]),
            None,
        )
        for r in rows
        if r["answerable"]
    ]


def mmmu_rows(folder):
    def true_text(row):
        return row["options"]["ABCD".index(row["answer"])] if row["options"] else row["answer"]

    rows = json.loads((folder / "validation.json").read_text())
    return [
        (
            int(r["image"].split("/")[1].removesuffix(".jpg")),
            r["kind"],
            r["question"].removeprefix("<image 1> "),
            true_text(r),
            None,
        )
        for r in rows
    ]


def answer_of(answers):
    assert len(answers) == 10
    (answer,) = set(answers)
    return answer


@pytest.fixture(scope="module")
def files(world):
    root, _ = world
    benchmarks = root / "held_out" / "benchmarks"
    return {
        "train": vqa_rows(root / "train" / "vqa"),
        "held_out": vqa_rows(root / "held_out" / "vqa"),
        "vqav2": vqa_rows(benchmarks / "vqav2"),
        "gqa": gqa_rows(benchmarks / "gqa"),
        "pope": pope_rows(benchmarks / "pope"),
        "mme": mme_rows(benchmarks / "mme"),
        "textvqa": textvqa_rows(benchmarks / "textvqa"),
        "vizwiz": vizwiz_rows(benchmarks / "vizwiz"),
        "mmmu": mmmu_rows(benchmarks / "mmmu"),
    }


def test_every_answer_is_true(world, files):
    root, _ = world
    train = read_truth(root / "train" / "visual_genome")
    held_out = read_truth(root / "held_out" / "visual_genome")
    for name, rows in files.items():
        truth = train if name == "train" else held_out
        for image_id, _, question, given, _ in rows:
            assert answer(truth[image_id], question) == given, (name, image_id, question)


def test_unanswerable_questions_ask_for_what_is_not_there(world):
    root, _ = world
    held_out = read_truth(root / "held_out" / "visual_genome")
    rows = json.loads((root / "held_out" / "benchmarks" / "vizwiz" / "val.json").read_text())
    unanswerable = [row for row in rows if not row["answerable"]]
    assert len(unanswerable) == len(rows) / 4
    for row in unanswerable:
        things = held_out[int(row["image"].split("/")[1].removesuffix(".jpg"))]
        shape = re.fullmatch(r"What color is the (\w+)\?", row["question"])[1]
        assert shape in SHAPES and not find(things, shape)
        assert {given["answer"] for given in row["answers"]} == {"unanswerable"}


def test_each_scene_has_its_number_of_different_questions(files):
    for name, each in (
        ("train", 12),
        ("held_out", 12),
        ("vqav2", 3),
        ("gqa", 3),
        ("pope", 1),
        ("textvqa", 1),
        ("mmmu", 1),
    ):
        by_scene = defaultdict(list)
        for image_id, _, question, *_ in files[name]:
            by_scene[image_id].append(question)
        assert len(by_scene) == (150 if name == "train" else 120)
        for questions in by_scene.values():
            assert len(questions) == len(set(questions)) == each


def test_the_best_constant_answer_is_poor(files):
    limits = {"color": 0.30, "shape": 0.30, "position": 0.35, "count": 0.45}
    for name, rows in files.items():
        answers = defaultdict(Counter)
        for _, kind, _, given, _ in rows:
            answers[kind][given] += 1
        for kind, counts in answers.items():
            share = max(counts.values()) / sum(counts.values())
            assert share <= limits.get(kind, 0.55), (name, kind, counts)


def test_kinds_are_even_and_shuffled(files):
    kinds = Counter(kind for _, kind, *_ in files["train"])
    assert len(kinds) == 7 and max(kinds.values()) - min(kinds.values()) <= 10
    order = [kind for _, kind, *_ in files["train"]]
    assert sum(one == other for one, other in pairwise(order)) < len(order) / 3


def test_counts_reach_from_zero_to_four_and_zero_is_rare(files):
    counts = Counter(given for _, kind, _, given, _ in files["train"] if kind == "count")
    assert set(counts) == set("01234")
    assert 0 < counts["0"] < 0.08 * sum(counts.values())


def test_presence_of_a_pair_cannot_be_guessed_from_the_question(files):
    asked = defaultdict(Counter)
    for _, kind, question, given, _ in files["train"]:
        if kind == "existence":
            asked[question][given] += 1
    often = [counts for counts in asked.values() if sum(counts.values()) >= 4]
    assert len(often) >= 10
    assert sum(max(c.values()) for c in often) < 0.7 * sum(sum(c.values()) for c in often)


def test_absent_pairs_are_hard(world, files):
    root, _ = world
    truth = read_truth(root / "train" / "visual_genome")
    absent = 0
    for image_id, _, question, given, _ in files["train"]:
        match = re.fullmatch(r"Is there an? (\w+) (\w+) in the image\?", question)
        if match and given == "no":
            absent += 1
            assert find(truth[image_id], match[1]) and find(truth[image_id], match[2])
    assert absent > 50


def test_training_never_mentions_a_held_out_pair(files):
    for _, _, question, _, novel in files["train"]:
        assert not novel
        assert not any(f"{colour} {shape}" in question for colour, shape in HELD_OUT_PAIRS)


def test_novel_rows_are_those_about_a_held_out_pair(world, files):
    root, _ = world
    truth = read_truth(root / "held_out" / "visual_genome")
    for name in ("vqav2", "gqa", "pope"):
        for image_id, kind, question, _, novel in files[name]:
            phrases = re.findall(
                r"(?:the|an?) ((?:\w+ )*?\w+?(?: in the \w+ ?\w*)?)(?=\?| to| above| in the image)",
                question,
            )
            single = kind != "count" and not question.startswith("Are there")
            about = set()
            for phrase in phrases if single else ():
                words = phrase.split()
                about |= {(c, s) for c in COLOURS for s in SHAPES if {c, s} <= set(words)}
                found = find(truth[image_id], phrase)
                if len(found) == 1:
                    about.add(found[0][1:3])
            assert novel == bool(about & HELD_OUT_PAIRS), (name, question)
        assert sum(row[-1] for row in files[name]) >= 30


def test_at_least_half_of_the_held_out_questions_are_open(files):
    rows = [row for name in ("vqav2", "gqa", "mme", "pope") for row in files[name]]
    still_open = sum(row[3] not in ("yes", "no") for row in rows)
    assert still_open >= len(rows) / 2
