"""ScienceQA's official layout, LLaVA's prompt and parse, and what theory says of the figures."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.evaluation.run import evaluate
from svit_jax.evaluation.scienceqa import ScienceQA, parse_letter


def test_the_test_split_is_asked_in_its_order_in_the_form_cqm_a(
    benchmarks: Path, images: Path
) -> None:
    picture, text_alone, with_hint = ScienceQA().read(benchmarks / "scienceqa", images)
    assert picture.text == (
        "Which is it?\nA. fox\nB. owl\nC. elk\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert with_hint.text == (
        "Context: Look.\nWhich is warmer?\nA. ice\nB. steam\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert [picture.question_id, text_alone.question_id, with_hint.question_id] == ["11", "7", "4"]
    assert (text_alone.has_picture, text_alone.image) == (False, None)
    assert picture.image == images / "11" / "image.png"
    assert with_hint.image == images / "test" / "4" / "image.png"
    assert text_alone.kind == "language science"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("E", "E"),
        ("F", "FAILED"),
        ("b", "FAILED"),
        ("B. the owl", "B"),
        ("B. ", "B"),
        ("B.", "FAILED"),
        ("B) owl", "FAILED"),
        ("", "FAILED"),
        ("AB", "FAILED"),
        ("The answer is C.", "C"),
        ("So. The answer is C, since", "C"),
        ("The answer is C", "FAILED"),
        ("The answer is C. The answer is D.", "FAILED"),
        ("The answer is C. The answer is C.", "FAILED"),
    ],
)
def test_answers_are_read_as_llava_reads_them(answer: str, letter: str) -> None:
    assert parse_letter(answer) == letter


def test_only_questions_with_a_picture_count_for_img(benchmarks: Path) -> None:
    questions = ScienceQA().read(benchmarks / "scienceqa", None)
    best = ScienceQA().score(questions, {"11": "A", "7": "E", "4": "B. steam"})
    assert best == {"image_accuracy": 100.0, "accuracy": 100.0}
    always_a = ScienceQA().score(questions, {"11": "A", "7": "A", "4": "A"})
    assert always_a == pytest.approx({"image_accuracy": 50.0, "accuracy": 100 / 3})
    # A letter beyond the choices is wrong, not an error.
    assert not ScienceQA().correct(questions[2], "E")


def test_the_results_file_is_llavas(benchmarks: Path) -> None:
    questions = ScienceQA().read(benchmarks / "scienceqa", None)
    upload = ScienceQA().submission(questions, {"11": "C", "7": "E", "4": "E"})
    assert json.loads(upload["scienceqa_results.json"]) == {
        "acc": pytest.approx(100 / 3),
        "correct": 1,
        "count": 3,
        "results": {"11": 2, "7": 4, "4": -1},
        "outputs": {"11": "C", "7": "E", "4": "E"},
    }


def test_a_question_without_a_picture_is_asked_without_one(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    shown: list[object] = []

    def answer_all(questions: Iterable[tuple[Path | NoPicture | None, str]]) -> Iterator[str]:
        for picture, _ in questions:
            shown.append(picture)
            yield "A"

    for blank in (False, True):
        evaluate(answer_all, "m", ["scienceqa"], benchmarks, images, tmp_path / "out", blank)
    pictures = [images / "11" / "image.png", images / "test" / "4" / "image.png"]
    assert shown[:3] == [pictures[0], NoPicture.TEXT_ALONE, pictures[1]]
    assert shown[3:] == [None, NoPicture.TEXT_ALONE, None]


def test_what_is_wrong_with_the_files_is_named(benchmarks: Path, images: Path) -> None:
    folder = benchmarks / "scienceqa"
    (images / "11" / "image.png").unlink()
    with pytest.raises(UserError, match=r"ScienceQA problem 11: its picture 11/image.png"):
        ScienceQA().read(folder, images)
    problems = json.loads((folder / "problems.json").read_text())
    problems["11"]["answer"] = 3
    (folder / "problems.json").write_text(json.dumps(problems))
    with pytest.raises(UserError, match="the answer 3 is not the place of one of its 3"):
        ScienceQA().read(folder, None)
    del problems["11"]
    (folder / "problems.json").write_text(json.dumps(problems))
    with pytest.raises(UserError, match="the field '11' is missing"):
        ScienceQA().read(folder, None)
    (folder / "pid_splits.json").write_text('{"train": []}')
    with pytest.raises(UserError, match="the field 'test' is missing"):
        ScienceQA().read(folder, None)
