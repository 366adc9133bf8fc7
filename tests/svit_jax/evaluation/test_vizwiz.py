"""VizWiz's files, LLaVA's prompt, VQA accuracy of constant answers in closed form, the upload."""

import json
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.vizwiz import VizWiz

CAN, WHICH = "VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg"


@pytest.fixture
def folder(benchmarks: Path) -> Path:
    return benchmarks / "vizwiz"


def test_the_prompt_tells_the_model_what_to_say_when_it_cannot_know(folder: Path) -> None:
    first, second = VizWiz().read(folder, None)
    assert first.text == (
        "What is this?\n"
        "When the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    assert (first.question_id, first.kind) == (CAN, "other")
    assert (second.question_id, second.kind) == (WHICH, "unanswerable")


@pytest.mark.parametrize(
    ("said", "other", "unanswerable"),
    [
        ("Can.", 100.0, 0.0),
        ("Unanswerable", 0.0, 100.0),
        ("the soup", 30.0, 0.0),
        ("Left", 0.0, 60.0),
        ("green", 0.0, 0.0),
    ],
)
def test_a_constant_answer_scores_by_its_annotators(
    folder: Path, said: str, other: float, unanswerable: float
) -> None:
    questions = VizWiz().read(folder, None)
    figures = VizWiz().score(questions, {CAN: said, WHICH: said})
    expected = {"accuracy": (other + unanswerable) / 2, "other": other}
    assert figures == pytest.approx({**expected, "unanswerable": unanswerable})


def test_the_truth_scores_the_maximum_and_swapped_truths_nothing(folder: Path) -> None:
    questions = VizWiz().read(folder, None)
    best = {q.question_id: VizWiz().expected(q) for q in questions}
    assert best == {CAN: "can", WHICH: "unanswerable"}
    assert VizWiz().score(questions, best)["accuracy"] == 100.0
    swapped = {CAN: best[WHICH], WHICH: best[CAN]}
    assert VizWiz().score(questions, swapped)["accuracy"] == 0.0


def test_the_test_split_is_for_upload_only(tmp_path: Path) -> None:
    rows = [{"image": f"VizWiz_test_{i:08d}.jpg", "question": "What's this?"} for i in range(2)]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    questions = VizWiz().read(tmp_path, None)
    answers = {"VizWiz_test_00000000.jpg": "The cat's tail", "VizWiz_test_00000001.jpg": "Two"}
    with pytest.raises(UserError, match="no public answer"):
        VizWiz().score(questions, answers)
    upload = VizWiz().submission(questions, answers)["vizwiz_results.json"]
    assert json.loads(upload) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": "cat 's tail"},
        {"image": "VizWiz_test_00000001.jpg", "answer": "2"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"questions": []}, "expected a list, found dict"),
        ([{"image": "a.jpg"}], "row 0: the field 'question' is missing"),
        ([{"image": "a.jpg", "question": "Is it?", "answers": []}], "row 0: 'answers' is empty"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        VizWiz().read(tmp_path, None)
