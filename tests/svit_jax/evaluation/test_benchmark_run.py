"""The runner: every question answered once and in order, also when it was killed between."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import read_jsonl
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.mme import MME
from svit_jax.evaluation.pope import POPE
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.runner import run_benchmark


class Killed(BaseException):
    pass


class Answerer:
    """Says the question's id; counts what it was asked; dies after `lives` answers."""

    def __init__(self, lives: int | None = None):
        self.asked: list[str] = []
        self.pictures: list[bool] = []
        self.lives = lives

    def __call__(self, questions: Sequence[Question]) -> Iterator[str]:
        for number, question in enumerate(questions):
            if number == self.lives:
                raise Killed
            self.asked.append(question.question_id)
            self.pictures.append(question.image is not None)
            yield f"yes, {question.question_id}"


def test_a_finished_run_leaves_llava_answers_and_the_upload(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    questions = POPE().read(benchmarks / "pope", images)
    answers = run_benchmark(POPE(), questions, Answerer(), tmp_path / "out", "model 1")
    assert list(answers.texts) == [q.question_id for q in questions]
    rows = list(read_jsonl(answers.file))
    assert [row["question_id"] for row in rows] == list(answers.texts)
    assert set(rows[0]) == {
        "question_id",
        "prompt",
        "text",
        "answer_id",
        "model_id",
        "metadata",
    }
    assert rows[0]["prompt"] == questions[0].text
    upload = (tmp_path / "out" / "pope.upload" / "pope_random_answers.json").read_text()
    assert json.loads(upload.split("\n")[0]) == {
        "question": "Is there a thing 0 in the image?",
        "answer": "yes, random/1",
    }


def test_a_killed_run_asks_only_what_is_open(benchmarks: Path, tmp_path: Path) -> None:
    questions = POPE().read(benchmarks / "pope", None)
    whole = run_benchmark(POPE(), questions, Answerer(), tmp_path / "whole", "model 1")
    first, second, third = Answerer(lives=2), Answerer(), Answerer()
    with pytest.raises(Killed):
        run_benchmark(POPE(), questions, first, tmp_path / "out", "model 1")
    journal = tmp_path / "out" / "pope.journal.jsonl"
    with journal.open("a") as file:
        file.write('{"key": "random/3", "val')
    resumed = run_benchmark(POPE(), questions, second, tmp_path / "out", "model 1")
    assert (first.asked, second.asked) == (["random/1", "random/2"], ["random/3", "random/4"])
    assert resumed.file.read_bytes() == whole.file.read_bytes()
    run_benchmark(POPE(), questions, third, tmp_path / "out", "model 1")
    assert third.asked == []


def test_a_blank_run_hides_the_pictures_and_keeps_its_own_files(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    questions = POPE().read(benchmarks / "pope", images)
    seeing, blind = Answerer(), Answerer()
    with_picture = run_benchmark(POPE(), questions, seeing, tmp_path, "model 1")
    without = run_benchmark(POPE(), questions, blind, tmp_path, "model 1", blank=True)
    assert all(seeing.pictures) and not any(blind.pictures)
    assert with_picture.file != without.file
    assert without.blank and blind.asked == seeing.asked


def test_answers_of_another_model_are_not_mixed_in(benchmarks: Path, tmp_path: Path) -> None:
    questions = POPE().read(benchmarks / "pope", None)
    run_benchmark(POPE(), questions, Answerer(), tmp_path, "model 1")
    with pytest.raises(UserError, match="belongs to other inputs"):
        run_benchmark(POPE(), questions, Answerer(), tmp_path, "model 2")


def test_too_few_and_too_many_answers_are_errors(benchmarks: Path, tmp_path: Path) -> None:
    questions = POPE().read(benchmarks / "pope", None)
    with pytest.raises(ValueError, match="stopped after 1 of 4 questions; the next is random/2"):
        run_benchmark(POPE(), questions, lambda _: iter(["yes"]), tmp_path / "few", "m")
    with pytest.raises(ValueError, match="more than 4"):
        run_benchmark(POPE(), questions, lambda _: iter(["yes"] * 5), tmp_path / "many", "m")
    with pytest.raises(UserError, match="random/1 occurs twice"):
        run_benchmark(POPE(), [*questions, questions[0]], Answerer(), tmp_path / "two", "m")


def test_answers_are_read_back_by_id_and_from_llava_files(benchmarks: Path, tmp_path: Path) -> None:
    mme = MME().read(benchmarks / "mme", None)
    own = run_benchmark(MME(), mme, Answerer(), tmp_path, "m")
    assert read_answers(own.file, mme) == own.texts
    llava = tmp_path / "llava.jsonl"
    rows = [
        {"question_id": q.question_id.split("#")[0], "prompt": q.text, "text": q.question_id}
        for q in reversed(mme)
    ]
    llava.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_answers(llava, mme) == {q.question_id: q.question_id for q in mme}
    pope = POPE().read(benchmarks / "pope", None)
    rows = [
        {"question_id": 900 + i, "prompt": q.text, "text": q.question_id}
        for i, q in enumerate(pope)
    ]
    llava.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_answers(llava, pope) == {q.question_id: q.question_id for q in pope}


def test_predictions_of_other_questions_are_refused(benchmarks: Path, tmp_path: Path) -> None:
    questions = POPE().read(benchmarks / "pope", None)
    path = tmp_path / "other.jsonl"
    path.write_text('{"question_id": "adversarial/1", "text": "yes"}\n')
    with pytest.raises(UserError, match="no answer to any of the 4 questions"):
        read_answers(path, questions)
    path.write_text('{"question_id": 1, "text": "yes"}\n' * 2)
    with pytest.raises(UserError, match="repeat a question id"):
        read_answers(path, questions)
    path.write_text('{"question_id": "random/1", "text": 1}\n')
    with pytest.raises(UserError, match="line 1: expected a text, found 1"):
        read_answers(path, questions)
    path.write_text('{"question_id": "random/1"}\n')
    with pytest.raises(UserError, match="line 1: the field 'text' is missing"):
        read_answers(path, questions)


@pytest.mark.parametrize(
    ("name", "file", "text", "first"),
    [
        ("scienceqa", "r.json", '{\n "outputs": {"11": "A", "7": "E", "4": "B"}\n}', "A"),
        (
            "seedbench",
            "p.jsonl",
            "".join(
                f'{{"question_id": {key}, "prediction": "{letter}"}}\n'
                for key, letter in (("9", "C"), ("101", "B"), ("102", "A"), ("103", "D"))
            ),
            "B",
        ),
        (
            "mmbench",
            "p.tsv",
            "index\tquestion\tprediction\n"
            '241\t?\tA\n1000241\t?\tB\n7\t?\t"A.\ncow"\n'
            "1000007\t?\tB\n2000007\t?\tC\n3000007\t?\tD\n",
            "A.\ncow",
        ),
    ],
)
def test_predictions_in_the_benchmarks_own_formats_are_read(
    benchmarks: Path, tmp_path: Path, name: str, file: str, text: str, first: str
) -> None:
    questions = BENCHMARKS[name].read(benchmarks / name, None)
    (tmp_path / file).write_text(text)
    answers = read_answers(tmp_path / file, questions)
    assert list(answers) == [q.question_id for q in questions]
    assert answers[questions[0].question_id] == first
    assert BENCHMARKS[name].score(questions, answers)["accuracy"] == 100.0


def test_a_table_without_predictions_is_named(benchmarks: Path, tmp_path: Path) -> None:
    questions = BENCHMARKS["mmbench"].read(benchmarks / "mmbench", None)
    (tmp_path / "p.tsv").write_text("index\tquestion\n7\t?\n")
    with pytest.raises(UserError, match="the field 'prediction' is missing"):
        read_answers(tmp_path / "p.tsv", questions)
    (tmp_path / "p.json").write_text('{\n "results": {}\n}')
    with pytest.raises(UserError, match="the field 'outputs' is missing"):
        read_answers(tmp_path / "p.json", questions)
