"""Choice benchmarks end to end on a toy world: a perfect, a constant and a shuffled answerer."""

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from data_pipeline.toy_world.generate import generate_world
from data_pipeline.toy_world.world import CELLS
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.benchmark import NoPicture, Question
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import evaluate

NAMES = ("scienceqa", "seedbench", "mmbench", "mmbench_cn")

Picture = Path | NoPicture | None


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    generate_world(root, train_scenes=1, held_out_scenes=120, novel_scenes=40, seed=3)
    return root / "held_out"


def run(
    name: str, held_out: Path, out: Path, answer: Callable[[list[Question]], list[str]]
) -> dict[str, float]:
    """The scores of one answerer, read back from the answers file that the run left."""
    questions = BENCHMARKS[name].read(held_out / "benchmarks" / name, held_out / "images")

    def answer_all(asked: Iterable[tuple[Picture, str]]) -> Iterator[str]:
        shown = list(asked)
        assert [text for _, text in shown] == [q.text for q in questions]
        assert all(isinstance(p, NoPicture) or (p and p.is_file()) for p, _ in shown)
        yield from answer(questions)

    evaluate(answer_all, "m", [name], held_out / "benchmarks", held_out / "images", out)
    answers = read_answers(out / f"{name}.answers.jsonl", questions)
    (upload,) = (out / f"{name}.upload").iterdir()
    assert read_answers(upload, questions) == answers
    scores = json.loads((out / f"{name}.scores.json").read_text())
    assert BENCHMARKS[name].score(questions, answers) == scores
    return scores


@pytest.mark.parametrize("name", NAMES)
def test_perfect_constant_and_shuffled_answers_score_as_theory_says(
    name: str, held_out: Path, tmp_path: Path
) -> None:
    def truths(questions: list[Question]) -> list[str]:
        return [BENCHMARKS[name].expected(q) for q in questions]

    def shuffled(questions: list[Question]) -> list[str]:
        return random.Random(1).sample(truths(questions), len(questions))

    best = run(name, held_out, tmp_path / "perfect", truths)
    assert set(best.values()) == {100.0}

    constant = run(name, held_out, tmp_path / "constant", lambda qs: ["B"] * len(qs))
    mixed = run(name, held_out, tmp_path / "shuffled", shuffled)
    single = "by_row" if name.startswith("mmbench") else "accuracy"
    count = len(BENCHMARKS[name].read(held_out / "benchmarks" / name, None))
    # True letters go round, so a constant one is right on a quarter, up to one question.
    assert abs(constant[single] - 25.0) <= 100.0 / count
    four_sigma = 400.0 * math.sqrt(0.25 * 0.75 / count)
    assert abs(mixed[single] - 25.0) < four_sigma
    if name.startswith("mmbench"):
        assert constant["accuracy"] == 0.0
        # Four rotations right by chance: once in 256.
        assert mixed["accuracy"] <= 100.0 * 2 / (count / 4)


def test_scienceqa_has_questions_of_both_sorts(held_out: Path) -> None:
    questions = BENCHMARKS["scienceqa"].read(held_out / "benchmarks" / "scienceqa", None)
    alone = [q for q in questions if not q.has_picture]
    assert 0 < len(alone) < len(questions) / 2
    for question in alone:
        # What the hint says decides: just one of the four options stands in it.
        hint, *_ = question.text.split("\n")
        options = re.findall(r"^([A-D])\. (.*)$", question.text, re.MULTILINE)
        told = [letter for letter, text in options if re.search(rf"\b{text}\b", hint)]
        assert told == [question.truth["letter"]]


def test_true_options_agree_with_the_annotations(held_out: Path) -> None:
    scenes = {}
    pictures = json.loads((held_out / "visual_genome" / "image_data.json").read_text())
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in pictures}
    for row in json.loads((held_out / "visual_genome" / "attributes.json").read_text()):
        scenes[row["image_id"]] = row["attributes"]
    content = json.loads((held_out / "benchmarks" / "seedbench" / "SEED-Bench.json").read_text())
    compared = 0
    for row in content["questions"]:
        match = re.fullmatch(r"Where is the (.+)\?", row["question"])
        if not match or row["data_type"] == "video":
            continue
        image_id = int(Path(row["data_id"]).stem)
        width, height = sizes[image_id]
        (thing,) = [
            thing
            for thing in scenes[image_id]
            if set(match[1].split()) <= {*thing["attributes"], *thing["names"]}
        ]
        column = int((thing["x"] + thing["w"] / 2) * 2 / width)
        line = int((thing["y"] + thing["h"] / 2) * 2 / height)
        assert row[f"choice_{row['answer'].lower()}"] == CELLS[2 * line + column]
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", ["mmbench", "mmbench_cn"])
def test_the_true_option_is_the_same_in_all_rotations(name: str, held_out: Path) -> None:
    circles: dict[int, list[tuple[str, str]]] = {}
    for question in BENCHMARKS[name].read(held_out / "benchmarks" / name, None):
        letter, options = question.truth["letter"], question.truth["options"]
        base = int(question.question_id) % 1_000_000
        circles.setdefault(base, []).append((letter, options[letter]))
    for rotations in circles.values():
        assert sorted(letter for letter, _ in rotations) == ["A", "B", "C", "D"]
        assert len({text for _, text in rotations}) == 1
