"""Each benchmark's own upload is read back; hand-made files of the official formats are scored."""

import json
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.mmmu import MMMU
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.textvqa import TextVQA
from svit_jax.evaluation.vqav2 import VQAv2

MUSIC, MATH, ART = "validation_Music_1", "validation_Math_2", "validation_Art_Theory_3"


@pytest.mark.parametrize("name", ["vqav2", "gqa", "textvqa", "vizwiz", "mmmu"])
def test_an_upload_of_the_truth_scores_the_maximum(
    name: str, benchmarks: Path, tmp_path: Path
) -> None:
    benchmark = BENCHMARKS[name]
    questions = benchmark.read(benchmarks / name, None)
    truths = {q.question_id: benchmark.expected(q) for q in questions}
    ((file, text),) = benchmark.submission(questions, truths).items()
    (tmp_path / file).write_text(text)
    found = read_answers(tmp_path / file, questions)
    assert benchmark.score(questions, found)["accuracy"] == 100.0


def test_vqa_results_may_cover_more_than_the_questions(benchmarks: Path, tmp_path: Path) -> None:
    questions = VQAv2().read(benchmarks / "vqav2", None)
    path = tmp_path / "results.json"
    rows = [{"question_id": number, "answer": text} for number, text in ((9, ""), (8, "yes"))]
    path.write_text(json.dumps([*rows, {"question_id": 7, "answer": "pink"}]))
    found = read_answers(path, questions)
    assert VQAv2().score(questions, found)["accuracy"] == pytest.approx((100 + 30) / 2)


def test_mmmu_takes_letters_by_id_and_raw_outputs_by_subject(
    benchmarks: Path, tmp_path: Path
) -> None:
    questions = MMMU().read(benchmarks / "mmmu", None)
    letters = tmp_path / "total_val_output.json"
    letters.write_text(json.dumps({MUSIC: "B", MATH: "It is 3.", ART: "A"}))
    expected = {"accuracy": 200 / 3, "Music": 100.0, "Math": 0.0, "Art_Theory": 100.0}
    figures = MMMU().score(questions, read_answers(letters, questions))
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    for key, said in ((MUSIC, "(B) it is"), (MATH, "x is 3"), (ART, "I am sure it is paul klee")):
        folder = tmp_path / "raw" / "_".join(key.split("_")[1:-1])
        folder.mkdir(parents=True)
        (folder / "output.json").write_text(json.dumps([{"id": key, "response": said}]))
    assert MMMU().score(questions, read_answers(tmp_path / "raw", questions)) == figures


def test_answers_by_id_may_lie_under_outputs(benchmarks: Path, tmp_path: Path) -> None:
    questions = MMMU().read(benchmarks / "mmmu", None)
    said = {MUSIC: "B", MATH: "3", ART: "A"}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"acc": 1.0, "outputs": said}, indent=2))
    assert read_answers(path, questions) == said
    path.write_text(json.dumps({"acc": 1.0, "outputs": ["B"]}))
    with pytest.raises(UserError, match="expected answers by id under 'outputs'"):
        read_answers(path, questions)


def test_a_single_json_line_is_still_an_answers_file(benchmarks: Path, tmp_path: Path) -> None:
    questions = TextVQA().read(benchmarks / "textvqa", None)[:1]
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question_id": questions[0].question_id, "text": "stop"}))
    assert read_answers(path, questions) == {questions[0].question_id: "stop"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"question_id": 34604, "answer": "stop"}], r"no answer to any of the 2 questions"),
        ([{"question_id": 1, "answer": "a"}] * 2, r"row 1: id 1 occurs twice"),
        ([{"question_id": 1}], r"row 0: expected an object with one of answer, prediction"),
        ([{"answer": "a"}], r"row 0: expected an object with one of question_id"),
        ([["a"]], r"row 0: expected an object"),
        ({"34602": 5}, r"answer to 34602: expected a text, found 5"),
    ],
)
def test_malformed_and_incomplete_results_are_named(
    benchmarks: Path, tmp_path: Path, content: object, message: str
) -> None:
    questions = TextVQA().read(benchmarks / "textvqa", None)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_answers(path, questions)


def test_a_folder_without_outputs_is_explained(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither SUBJECT/output\.json"):
        read_answers(tmp_path / "empty", MMMU().read(benchmarks / "mmmu", None))
