"""SEED-Bench-1: the official layout, LLaVA's prompt and strict parse, accuracy by dimension."""

import json
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.seedbench import SEEDBench

RIGHT = {"101": "B", "102": "A", "103": "D", "9": "C"}


def test_questions_have_four_options_and_pictures_of_both_parts(
    benchmarks: Path, images: Path
) -> None:
    questions = SEEDBench().read(benchmarks / "seedbench", images)
    assert questions[0].text == (
        "What is on the table?\nA. a cup\nB. a cat\nC. a hat\nD. 4\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert [q.kind for q in questions] == ["Scene Understanding"] * 2 + [
        "Instances Counting",
        "Action Recognition",
    ]
    assert questions[0].image == images / "SEED-Bench-image" / "1454426_2591111986"
    assert questions[3].image == images / "SEED-Bench-video-image" / "9.png"


def test_every_question_counts_once(benchmarks: Path) -> None:
    questions = SEEDBench().read(benchmarks / "seedbench", None)
    best = SEEDBench().score(questions, RIGHT)
    assert set(best.values()) == {100.0}
    # Three of four right: a mean over the three dimensions would give 83.3.
    some = SEEDBench().score(questions, {**RIGHT, "101": "A"})
    assert some == pytest.approx(
        {
            "accuracy": 75.0,
            "image": 200 / 3,
            "video": 100.0,
            "Scene Understanding": 50.0,
            "Instances Counting": 100.0,
            "Action Recognition": 100.0,
        }
    )
    constant = SEEDBench().score(questions, dict.fromkeys(RIGHT, "A"))
    assert (constant["accuracy"], constant["video"]) == (25.0, 0.0)
    assert "video" not in SEEDBench().score(questions[:3], RIGHT)


@pytest.mark.parametrize("answer", ["B.", "b", " B", "B. a cat", "The answer is B.", ""])
def test_only_the_bare_letter_is_right(benchmarks: Path, answer: str) -> None:
    first = SEEDBench().read(benchmarks / "seedbench", None)[0]
    assert SEEDBench().correct(first, "B") and not SEEDBench().correct(first, answer)


def test_the_upload_has_a_line_for_each_answer_under_the_files_own_id(benchmarks: Path) -> None:
    questions = SEEDBench().read(benchmarks / "seedbench", None)
    upload = SEEDBench().submission(questions, {"101": "A", "9": "C."})
    lines = upload["seedbench_predictions.jsonl"].splitlines()
    assert [json.loads(line) for line in lines] == [
        {"question_id": "101", "prediction": "A"},
        {"question_id": 9, "prediction": "C."},
    ]


def test_a_frame_may_carry_its_videos_name(benchmarks: Path, images: Path) -> None:
    frames = images / "SEED-Bench-video-image"
    (frames / "9.png").rename(frames / "77411.jpg")
    assert SEEDBench().read(benchmarks / "seedbench", images)[3].image == frames / "77411.jpg"
    (frames / "77411.jpg").unlink()
    with pytest.raises(UserError, match=r"row 3: its picture SEED-Bench-video-image/9.png"):
        SEEDBench().read(benchmarks / "seedbench", images)


@pytest.mark.parametrize(
    ("field", "value"), [("answer", "E"), ("data_type", "audio"), ("question_type_id", 77)]
)
def test_an_unknown_value_is_named(benchmarks: Path, field: str, value: object) -> None:
    path = benchmarks / "seedbench" / "SEED-Bench.json"
    content = json.loads(path.read_text())
    content["questions"][1][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"row 1: {field} is {value!r}, expected one of"):
        SEEDBench().read(benchmarks / "seedbench", None)
