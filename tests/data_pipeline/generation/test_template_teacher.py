"""What the template teacher says is held against the scenes by an independent reader."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import Scene, SceneObject
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.generation.facts import Facts
from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.parsing import parse_response
from data_pipeline.generation.prompt import Prompt
from data_pipeline.generation.teacher import Request, Teacher
from data_pipeline.generation.template_teacher import TemplateTeacher

THING = r"[Tt]he ((?:large |small )?(?:\w+ )?(?:circle|square|triangle|star))"
BESIDE = "is (to the left of|to the right of|above|below)"
MARKED = re.compile(r"<st>([^<]*)<ed> ((?:\[[^]]*\](?:, )?)+)")
LEFT_TO_RIGHT, TOP_TO_BOTTOM = ("left", "center", "right"), ("top", "middle", "bottom")


def answers(scene: Scene, kind: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    response = TemplateTeacher().respond(Request(kind, scene, Prompt("", ""), seed))
    parsed = parse_response(kind, response)
    assert parsed.rejections == ()
    for item in parsed.items:
        texts = ["", *(turn.text for turn in item)] if len(item) == 1 else [t.text for t in item]
        yield from zip(texts[::2], texts[1::2], strict=True)


def meant(scene: Scene, words: str) -> SceneObject:
    """The one object that all words fit."""
    fitting = [o for o in scene.objects if {*words.split()} <= {o.name, *o.attributes}]
    assert len(fitting) == 1, (words, scene.objects)
    return fitting[0]


def middle(thing: SceneObject) -> tuple[float, float]:
    return (thing.box.x1 + thing.box.x2) / 2, (thing.box.y1 + thing.box.y2) / 2


def cell(scene: Scene, thing: SceneObject) -> str:
    x, y = middle(thing)
    column = LEFT_TO_RIGHT[int(3 * x / scene.width)]
    row = TOP_TO_BOTTOM[int(3 * y / scene.height)]
    return f"{row} {column}".replace("middle center", "center")


def matching(scene: Scene, words: str) -> int:
    """How many objects fit the words; "objects" fits all, a plural its singular."""
    wanted = {word.removesuffix("s") for word in words.split()} - {"object"}
    return sum(wanted <= {o.name, *o.attributes} for o in scene.objects)


def check(scene: Scene, question: str, answer: str) -> list[str]:
    """Asserts every claim that it can read; returns the kinds of claims."""
    read = []
    if question.startswith("If "):
        for total, number, color in re.findall(
            r"(\d+) of the (\d+) objects? (?:is|are) (\w+)", answer
        ):
            assert int(total) == matching(scene, color) and int(number) == len(scene.objects)
            left = int(re.match(r"\d+", answer)[0])
            assert left == len(scene.objects) - int(total)
            read.append("remaining")
        return read
    for words, place in re.findall(
        rf"{THING} is (?:\w+ and )?in the ([\w ]+) of the image", answer
    ):
        assert cell(scene, meant(scene, words)) == place
        read.append("place")
    for one, where, other in re.findall(rf"{THING} {BESIDE} {THING}", answer):
        (x1, y1), (x2, y2) = (middle(meant(scene, words)) for words in (one, other))
        holds = {"left": x1 < x2, "right": x1 > x2, "above": y1 < y2, "below": y1 > y2}
        assert holds[where.split(" ")[2 if where.startswith("to") else 0]]
        read.append("beside")
    for one, more, other in re.findall(rf"{THING} is (larger|smaller) than {THING}", answer):
        sizes = [(o.box.x2 - o.box.x1) for o in (meant(scene, one), meant(scene, other))]
        assert (sizes[0] > sizes[1]) == (more == "larger")
        read.append("size")
    for words, color in re.findall(rf"{THING} is (red|blue|green|yellow)\b", answer):
        assert color in meant(scene, words).attributes
        read.append("color")
    for number, words in re.findall(r"[Tt]here (?:is|are) (\d+) ([\w ]+?) in the image", answer):
        assert matching(scene, words) == int(number)
        read.append("count")
    asked = re.fullmatch(r"Is there an? ([\w ]+) in the image\?", question)
    if asked:
        present = matching(scene, asked[1]) > 0
        assert answer.startswith("Yes" if present else "No")
        read.append(f"exists {present}")
    return read


def without_marks(scene: Scene, text: str) -> str:
    """The text without marks and boxes, after each box was found to be the named object's own."""
    for name, boxes in MARKED.findall(text):
        for box in re.findall(r"\[[^]]*\]", boxes):
            x1, y1, x2, y2 = map(float, box[1:-1].split(", "))
            corners = (x1 * scene.width, y1 * scene.height, x2 * scene.width, y2 * scene.height)
            words = {word.removesuffix("s") for word in name.split()}
            assert any(
                words <= {o.name, *o.attributes} and corners == pytest.approx(o.box, abs=0.1)
                for o in scene.objects
            )
    return MARKED.sub(lambda match: match[1], text)


def test_claims_about_shapes_are_true(shape_scenes: list[Scene]) -> None:
    read: Counter[str] = Counter()
    for scene in shape_scenes:
        for kind in ("conversation", "complex_reasoning", "detail_description"):
            for question, answer in answers(scene, kind):
                assert "<st>" not in answer
                read.update(check(scene, question, answer))
    expected = ("place", "beside", "size", "color", "count", "exists True", "exists False")
    assert all(read[claim] >= 20 for claim in (*expected, "remaining")), read


def test_mentions_carry_their_own_boxes(shape_scenes: list[Scene]) -> None:
    read: Counter[str] = Counter()
    for scene in shape_scenes:
        for question, answer in answers(scene, "referring_qa"):
            assert "<st>" in answer
            without_marks(scene, question)
            plain = without_marks(scene, answer)
            if all(matching(scene, words) == 1 for words in re.findall(THING, plain)):
                read.update(check(scene, question, plain))
    assert all(read[claim] >= 10 for claim in ("place", "beside", "size", "color")), read


def test_rich_scenes_get_the_asked_numbers(shape_scenes: list[Scene]) -> None:
    rich = [scene for scene in shape_scenes if len(scene.objects) >= 4]
    for kind, number in (("conversation", 15), ("complex_reasoning", 15), ("referring_qa", 10)):
        counts = [len(list(answers(scene, kind))) for scene in rich]
        assert max(counts) == number and sum(counts) > 0.9 * number * len(rich)


def test_yes_and_no_come_about_evenly(shape_scenes: list[Scene]) -> None:
    first = Counter(
        answer.split(",")[0]
        for scene in shape_scenes
        for _, answer in answers(scene, "conversation")
    )
    assert 0.4 < first["Yes"] / (first["Yes"] + first["No"]) < 0.6


def test_held_out_combinations_are_not_asked_for(shape_scenes: list[Scene]) -> None:
    unasked = {"red star", "blue circle"}
    teacher = TemplateTeacher(unasked)
    assert teacher.name != TemplateTeacher().name
    for scene in shape_scenes:
        text = teacher.respond(Request("conversation", scene, Prompt("", ""), 0))
        for color, shape in re.findall(r"there a (\w+) (\w+) in the image\?\n.*No", text):
            assert f"{color} {shape}" not in unasked


def test_answers_repeat_by_seed_and_layouts_vary(shape_scenes: list[Scene]) -> None:
    def responses(seed: int) -> list[str]:
        teacher = TemplateTeacher()
        return [
            teacher.respond(Request("complex_reasoning", scene, Prompt("", ""), seed))
            for scene in shape_scenes
        ]

    assert responses(1) == responses(1) != responses(2)
    starts = {re.sub(r"\d+", "N", text.split(" ")[0]) for text in responses(1)}
    assert starts >= {"Question:", "N.", "Question", "**Question:**"}


def test_dense_scenes_are_named_and_counted_with_care(street: Scene) -> None:
    facts = Facts(street)
    assert not facts.exhaustive
    assert [thing.name for thing in facts.things] == [
        "clock",
        "man",
        "guy",
        "tree",
        "shirt",
        "sign",
    ]
    # The clock is told twice, man and guy may be confused, there are more trees than one.
    assert set(facts.phrases.values()) == {"green clock", "shirt", "gray sign"}
    assert facts.countable == {"clock": 1, "shirt": 1, "sign": 1}
    assert [(f.subject.name, f.words, f.target.name) for f in facts.facts] == [
        ("sign", "near", "clock"),
        ("man", "wearing", "shirt"),
    ]
    for kind in KINDS:
        for question, answer in answers(street, kind):
            assert not re.search(r"\bman\b", question + answer) or "<st>" in answer
            assert not answer.startswith("No, there is no")


def test_a_scene_without_content_gets_the_answer_of_an_empty_message() -> None:
    empty = Scene(1, "VG_100K/1.jpg", 10, 10)
    for kind in KINDS:
        text = TemplateTeacher().respond(Request(kind, empty, Prompt("", ""), 0))
        assert "message is empty" in text


def test_real_scenes_give_usable_responses(real_data: Path) -> None:
    for scene in read_visual_genome(real_data / "visual_genome_sample", None):
        for kind in KINDS:
            pairs = list(answers(scene, kind))
            assert len(pairs) >= {"detail_description": 1}.get(kind, 8)
            for question, answer in pairs:
                assert not re.search(r"description|bounding box", question + answer)


def test_it_is_a_teacher() -> None:
    assert isinstance(TemplateTeacher(), Teacher)
