"""Each benchmark's official layout, prompts, parses, figures and uploads."""

import json
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.gqa import GQA
from svit_jax.evaluation.grounding import Grounding, overlap
from svit_jax.evaluation.judged import Judged
from svit_jax.evaluation.mme import MME
from svit_jax.evaluation.mme import parse_yes_no as parse_mme
from svit_jax.evaluation.pope import POPE
from svit_jax.evaluation.pope import parse_yes_no as parse_pope
from svit_jax.evaluation.registry import BENCHMARKS, find_benchmark
from svit_jax.evaluation.vqav2 import VQAv2

SUFFIX = "\nAnswer the question using a single word or phrase."


def perfect(name: str, questions: list[Question]) -> dict[str, str]:
    return {q.question_id: BENCHMARKS[name].expected(q) for q in questions}


def constant(questions: list[Question], answer: str) -> dict[str, str]:
    return {q.question_id: answer for q in questions}


SCORED = [name for name, each in BENCHMARKS.items() if not isinstance(each, Judged)]
"""Those that need no judge."""


@pytest.mark.parametrize("name", SCORED)
def test_the_truth_is_always_correct_and_pictures_are_found(
    name: str, benchmarks: Path, images: Path
) -> None:
    questions = BENCHMARKS[name].read(benchmarks / name, images)
    assert questions
    assert all(q.image is not None and q.image.is_file() for q in questions if q.has_picture)
    truths = perfect(name, questions)
    assert all(BENCHMARKS[name].correct(q, truths[q.question_id]) for q in questions)


@pytest.mark.parametrize("name", SCORED)
def test_files_are_readable_without_pictures(name: str, benchmarks: Path) -> None:
    assert all(q.image is None for q in BENCHMARKS[name].read(benchmarks / name, None))


@pytest.mark.parametrize("name", SCORED)
def test_a_question_without_an_answer_stops_the_scoring(name: str, benchmarks: Path) -> None:
    questions = BENCHMARKS[name].read(benchmarks / name, None)
    answers = perfect(name, questions)
    del answers[questions[-1].question_id]
    with pytest.raises(UserError, match=r"has no answer"):
        BENCHMARKS[name].score(questions, answers)
    with pytest.raises(UserError, match="no questions"):
        BENCHMARKS[name].score([], {})


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_an_empty_folder_is_explained(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        BENCHMARKS[name].read(tmp_path, None)


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean pope"):
        find_benchmark("popo")


def test_vqav2_reads_questions_with_their_annotations(benchmarks: Path, images: Path) -> None:
    first, second = VQAv2().read(benchmarks / "vqav2", images)
    assert first.text == "What color is the ball?" + SUFFIX
    assert (first.question_id, first.kind, first.novel) == ("7", "what color is the", True)
    assert second.image == images / "COCO_val2014_000000000042.jpg"
    assert (second.kind, second.novel) == ("is it", False)


def test_an_extra_kind_overrides_the_official_one(benchmarks: Path) -> None:
    path = benchmarks / "gqa" / "questions.json"
    path.write_text(path.read_text().replace('"imageId": "2"', '"imageId": "2", "kind": "color"'))
    assert [q.kind for q in GQA().read(benchmarks / "gqa", None)] == ["color", "exist"]


def test_vqav2_scores_by_answer_type(benchmarks: Path) -> None:
    questions = VQAv2().read(benchmarks / "vqav2", None)
    best = VQAv2().score(questions, {"7": "Red.", "8": "yes"})
    assert best == {"accuracy": 100.0, "other": 100.0, "yes/no": 100.0}
    some = VQAv2().score(questions, {"7": "pink", "8": "no"})
    assert some == pytest.approx({"accuracy": 15.0, "other": 30.0, "yes/no": 0.0})
    assert not VQAv2().correct(questions[0], "pink")


def test_vqav2_uploads_normalised_answers_for_every_question(
    benchmarks: Path, tmp_path: Path
) -> None:
    questions = VQAv2().read(benchmarks / "vqav2", None)
    upload = VQAv2().submission(questions, {"7": "The cat's tail"})["vqav2_results.json"]
    assert json.loads(upload) == [
        {"question_id": 7, "answer": "cat 's tail"},
        {"question_id": 8, "answer": ""},
    ]
    dev, whole = (
        tmp_path / f"v2_OpenEnded_mscoco_{split}_questions.json"
        for split in ("test-dev2015", "test2015")
    )
    dev.write_text((benchmarks / "vqav2" / "questions.json").read_text())
    whole.write_text(json.dumps({"questions": [{"question_id": i} for i in (6, 7, 8)]}))
    questions = VQAv2().read(tmp_path, None)
    assert [q.question_id for q in questions] == ["7", "8"]
    upload = VQAv2().submission(questions, {"7": "The cat's tail"})["vqav2_results.json"]
    assert sorted(json.loads(upload), key=lambda row: row["question_id"]) == [
        {"question_id": 6, "answer": ""},
        {"question_id": 7, "answer": "cat 's tail"},
        {"question_id": 8, "answer": ""},
    ]


def test_vqav2_without_annotations_is_for_upload_only(benchmarks: Path) -> None:
    (benchmarks / "vqav2" / "annotations.json").unlink()
    questions = VQAv2().read(benchmarks / "vqav2", None)
    assert [q.truth for q in questions] == [None, None]
    with pytest.raises(UserError, match="no public answer"):
        VQAv2().score(questions, {"7": "red", "8": "yes"})


def test_vqav2_names_what_is_wrong(benchmarks: Path, images: Path) -> None:
    (images / "COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(UserError, match=r"row 1: its picture COCO_val2014_000000000042.jpg"):
        VQAv2().read(benchmarks / "vqav2", images)
    annotations = benchmarks / "vqav2" / "annotations.json"
    rows = json.loads(annotations.read_text())["annotations"]
    annotations.write_text(json.dumps({"annotations": rows[:1]}))
    with pytest.raises(UserError, match="question 7 has no annotation"):
        VQAv2().read(benchmarks / "vqav2", None)
    questions = benchmarks / "vqav2" / "questions.json"
    questions.write_text(json.dumps({"questions": [{"question_id": 1, "image_id": 1}]}))
    with pytest.raises(UserError, match="'question' is missing"):
        VQAv2().read(benchmarks / "vqav2", None)
    questions.write_text("[1, 2")
    with pytest.raises(UserError, match="not valid JSON"):
        VQAv2().read(benchmarks / "vqav2", None)


def test_gqa_lowercases_and_drops_the_last_period(benchmarks: Path) -> None:
    questions = GQA().read(benchmarks / "gqa", None)
    assert questions[0].text == "Which color is the box?" + SUFFIX
    assert [q.kind for q in questions] == ["attrQuery", "exist"]
    figures = GQA().score(questions, {"g1": "Blue.", "g2": "yes"})
    assert figures == {"accuracy": 50.0, "open": 100.0, "binary": 0.0}
    assert not GQA().correct(questions[0], "dark blue")
    upload = GQA().submission(questions, {"g1": "Blue.", "g2": "No"})
    assert json.loads(upload["testdev_balanced_predictions.json"]) == [
        {"questionId": "g1", "prediction": "blue"},
        {"questionId": "g2", "prediction": "no"},
    ]


@pytest.mark.parametrize(
    ("answer", "read_as"),
    [
        ("yes", "yes"),
        ("No", "no"),
        ("No, there is not.", "no"),
        ("There is no dog.", "no"),
        ("It is not", "no"),
        ("Yes. There is no cat.", "yes"),
        ("NO", "yes"),
        ("It isn't", "yes"),
        ("no\nreally", "yes"),
        ("", "yes"),
    ],
)
def test_pope_reads_answers_as_its_script_does(answer: str, read_as: str) -> None:
    assert parse_pope(answer) == read_as


def test_pope_figures_follow_the_definitions(benchmarks: Path) -> None:
    questions = POPE().read(benchmarks / "pope", None)
    assert [q.question_id for q in questions] == [f"random/{i}" for i in (1, 2, 3, 4)]
    assert {q.kind for q in questions} == {"existence"}
    replies = dict(zip((q.question_id for q in questions), ["yes", "yes", "no", "no"], strict=True))
    figures = POPE().score(questions, replies)
    for name in ("f1", "accuracy", "precision", "recall", "yes_ratio"):
        assert figures[name] == figures[f"random/{name}"] == 50.0
    never = POPE().score(questions, constant(questions, "no"))
    assert (never["f1"], never["accuracy"], never["precision"]) == (0.0, 50.0, 0.0)


def test_pope_takes_the_mean_over_its_splits(benchmarks: Path) -> None:
    folder = benchmarks / "pope"
    row = {"question_id": 1, "image": "x.jpg", "text": "Is there a cup?", "label": "yes"}
    (folder / "coco_pope_popular.json").write_text(json.dumps(row) + "\n")
    questions = POPE().read(folder, None)
    assert questions[-1].question_id == "popular/1"
    figures = POPE().score(questions, constant(questions, "yes"))
    assert figures["random/f1"] == pytest.approx(200 / 3)
    assert figures["popular/f1"] == 100.0
    assert figures["f1"] == pytest.approx((200 / 3 + 100) / 2)


def test_pope_rejects_an_odd_label(benchmarks: Path) -> None:
    path = benchmarks / "pope" / "coco_pope_random.json"
    path.write_text('{"image": "x.jpg", "text": "Is there a cup?", "label": "maybe"}\n')
    with pytest.raises(UserError, match="question 1: label 'maybe'"):
        POPE().read(benchmarks / "pope", None)


def test_real_pope_questions_score_as_theory_says(real_data: Path) -> None:
    questions = POPE().read(real_data / "benchmarks", None)
    assert len(questions) == 3000
    assert questions[0].text == "Is there a snowboard in the image?" + SUFFIX
    best = POPE().score(questions, perfect("pope", questions))
    assert best["f1"] == best["accuracy"] == 100.0
    assert best["yes_ratio"] == 50.0
    always = POPE().score(questions, constant(questions, "Yes, there is."))
    assert (always["accuracy"], always["recall"], always["yes_ratio"]) == (50.0, 100.0, 100.0)
    assert always["f1"] == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("answer", "read_as"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("Yes, it is", "yes"),
        ("No.", "no"),
        ("know", "no"),
        ("I say yes", "other"),
        ("", "other"),
    ],
)
def test_mme_reads_answers_as_its_script_does(answer: str, read_as: str) -> None:
    assert parse_mme(answer) == read_as


def test_mme_reads_both_layouts_and_swaps_the_suffix(benchmarks: Path, images: Path) -> None:
    questions = MME().read(benchmarks / "mme", images)
    assert [q.question_id for q in questions] == [
        "count/a.png#1",
        "count/a.png#2",
        "count/b.png#1",
        "count/b.png#2",
        "posters/p.jpg#1",
        "posters/p.jpg#2",
        "code_reasoning/c.png#1",
        "code_reasoning/c.png#2",
    ]
    assert questions[0].text == "Is there one ball?" + SUFFIX
    assert questions[1].text == "Are there two balls?" + SUFFIX
    assert questions[4].image == benchmarks / "mme" / "posters" / "images" / "p.jpg"
    assert questions[0].kind == "count"


def test_mme_scores_questions_and_pictures(benchmarks: Path) -> None:
    questions = MME().read(benchmarks / "mme", None)
    best = MME().score(questions, perfect("mme", questions))
    assert (best["perception"], best["perception_maximum"]) == (400.0, 400.0)
    assert (best["cognition"], best["cognition_maximum"]) == (200.0, 200.0)
    always = MME().score(questions, constant(questions, "yes"))
    assert (always["count"], always["perception"], always["cognition"]) == (50.0, 100.0, 50.0)
    half = perfect("mme", questions) | {"count/b.png#2": "yes"}
    assert MME().score(questions, half)["count"] == 75.0 + 50.0


def test_mme_uploads_the_original_questions(benchmarks: Path) -> None:
    questions = MME().read(benchmarks / "mme", None)
    upload = MME().submission(questions, constant(questions, "Yes\nsure"))
    assert sorted(upload) == ["code_reasoning.txt", "count.txt", "posters.txt"]
    assert upload["posters.txt"].split("\n")[1] == (
        "p.jpg\tAre there two balls?  Please answer yes or no.\tNo\tYes sure"
    )


def test_mme_takes_order_from_the_results_template(benchmarks: Path) -> None:
    (benchmarks / "mme" / "count.txt").write_text(
        "b.png\tIs it b? Please answer yes or no.\tYes\nb.png\tIs it a?\tNo\n"
    )
    questions = MME().read(benchmarks / "mme", None)
    assert [q.question_id for q in questions[:3]] == [
        "count/b.png#1",
        "count/b.png#2",
        "posters/p.jpg#1",
    ]


def test_mme_names_broken_files(benchmarks: Path) -> None:
    path = benchmarks / "mme" / "count" / "a.txt"
    path.write_text("Is there one ball? Please answer yes or no.\tYes\n")
    with pytest.raises(UserError, match=r"count, a.png: found 1 questions, expected two"):
        MME().read(benchmarks / "mme", None)
    path.write_text("Is there one ball?\n")
    with pytest.raises(UserError, match=r"a.txt, line 1: expected 2 columns"):
        MME().read(benchmarks / "mme", None)
    path.write_text("Is there one ball?\tPerhaps\n")
    with pytest.raises(UserError, match="'Perhaps' is neither"):
        MME().read(benchmarks / "mme", None)


def test_the_first_box_of_an_answer_counts(benchmarks: Path) -> None:
    first, second = Grounding().read(benchmarks / "referring", None)
    assert overlap(first, "It is at [0.1, 0.2, 0.5, 0.6].") == pytest.approx(1.0)
    assert overlap(first, "[0.1, 0.2, 0.5, 0.4] [0.1, 0.2, 0.5, 0.6]") == pytest.approx(0.5)
    assert overlap(first, "nowhere") == 0.0
    answers = {"r1": "[0.1, 0.2, 0.5, 0.6]", "r2": "[0.0, 0.0, 0.4, 0.4]"}
    figures = Grounding().score([first, second], answers)
    assert figures == pytest.approx({"iou_50": 50.0, "mean_iou": 50.0, "answered_with_box": 100.0})


@pytest.mark.parametrize("boxes", [[], [[0.1, 0.2, 0.3]], [[0, 0, 300, 200]], "none"])
def test_true_boxes_must_be_fractions(boxes: object, benchmarks: Path) -> None:
    path = benchmarks / "referring" / "questions.json"
    row = {"question_id": "r", "image": "x.jpg", "text": "Where?", "boxes": boxes}
    path.write_text(json.dumps([row]))
    with pytest.raises(UserError, match="row 0: 'boxes'"):
        Grounding().read(benchmarks / "referring", None)
