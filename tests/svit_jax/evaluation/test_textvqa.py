"""TextVQA's files, LLaVA's three kinds of prompt, M4C's accuracy by its own definition."""

import json
import random
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.textvqa import TextVQA
from svit_jax.evaluation.vqa_accuracy import normalise_answer

SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def folder(benchmarks: Path) -> Path:
    return benchmarks / "textvqa"


def m4c_accuracy(prediction: str, answers: list[str]) -> float:
    """As M4C states it: each annotator in turn left out, then the mean."""
    given = [normalise_answer(answer) for answer in answers]
    said = normalise_answer(prediction)
    shares = [
        min(1.0, sum(a == said for a in given[:left_out] + given[left_out + 1 :]) / 3)
        for left_out in range(len(given))
    ]
    return sum(shares) / len(shares)


def test_without_an_ocr_file_the_prompt_is_the_capitalised_question(folder: Path) -> None:
    first, second = TextVQA().read(folder, None)
    assert first.text == "What does the usa sign say?" + SUFFIX
    assert (first.question_id, second.question_id) == ("ab01#34602", "cd02#34603")


def test_rosetta_tokens_become_the_reference_line(folder: Path) -> None:
    rows = [{"image_id": "ab01", "ocr_tokens": ["STOP", "now,"]}]
    path = folder / "TextVQA_Rosetta_OCR_v0.2_val.json"
    path.write_text(json.dumps({"data": rows}))
    with pytest.raises(UserError, match=r"row 1: .*TextVQA_Rosetta_OCR_v0.2_val.json has nothing"):
        TextVQA().read(folder, None)
    path.write_text(json.dumps({"data": [*rows, {"image_id": "cd02", "ocr_tokens": []}]}))
    first, second = TextVQA().read(folder, None)
    assert first.text == "What does the usa sign say?\nReference OCR token: STOP, now," + SUFFIX
    assert second.text == "What number is it?\nReference OCR token: " + SUFFIX


def test_llava_prompts_are_taken_byte_for_byte_and_its_answers_read(folder: Path) -> None:
    texts = [
        "What does the USA sign say?\nReference OCR token: STOP" + SUFFIX,
        "What number is it?\nReference OCR token: 5" + SUFFIX,
    ]
    names = ("ab01", "cd02")
    prompts = [
        {"question_id": name, "image": f"{name}.jpg", "text": text, "category": "default"}
        for name, text in zip(names, texts, strict=True)
    ]
    path = folder / "llava_textvqa_val_v051_ocr.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts))
    questions = TextVQA().read(folder, None)
    assert [q.text for q in questions] == texts
    answers = folder / "answers.jsonl"
    answers.write_text(
        "".join(
            json.dumps({"question_id": name, "prompt": text, "text": said}) + "\n"
            for name, text, said in zip(names, texts, ("Stop.", "6"), strict=True)
        )
    )
    found = read_answers(answers, questions)
    assert TextVQA().score(questions, found) == {"accuracy": 100.0}


def test_a_repeated_question_of_a_picture_is_scored_by_its_last_row(folder: Path) -> None:
    path = folder / "TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    again = {**content["data"][0], "question_id": 9, "answers": ["halt"] * 10}
    path.write_text(json.dumps({"data": [*content["data"], again]}))
    assert [q.truth[0] for q in TextVQA().read(folder, None)] == ["halt", "Five", "halt"]


def test_strict_scoring_counts_a_repeated_question_by_its_own_row(folder: Path) -> None:
    """The first row's answers are eight "stop", "stop sign", "go"; the third's ten times "halt"."""
    path = folder / "TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    again = {**content["data"][0], "question_id": 9, "answers": ["halt"] * 10}
    path.write_text(json.dumps({"data": [*content["data"], again]}))
    questions = TextVQA().read(folder, None)
    said = {"ab01#34602": "Stop", "cd02#34603": "5", "ab01#9": "halt!"}
    official = TextVQA().score(questions, said)
    assert official == pytest.approx({"accuracy": 100 * 2 / 3})
    strict = TextVQA().score(questions, said, strict=True)
    assert strict == pytest.approx(
        {"accuracy": 100.0, "accuracy_by_own_answers": 100.0, "repeated_questions": 1.0}
    )
    swapped = {**said, "ab01#34602": "halt"}
    assert TextVQA().score(questions, swapped)["accuracy"] == 100.0
    assert TextVQA().score(questions, swapped, True)["accuracy"] == pytest.approx(100 * 2 / 3)


def test_accuracy_is_m4cs_and_the_upload_evalais(folder: Path) -> None:
    questions = TextVQA().read(folder, None)
    said = {"ab01#34602": "Stop sign", "cd02#34603": "five"}
    share = sum(m4c_accuracy(said[q.question_id], q.truth) for q in questions) / 2
    assert share == pytest.approx((0.3 + 1.0) / 2)
    assert TextVQA().score(questions, said)["accuracy"] == pytest.approx(100 * share)
    assert [TextVQA().expected(q) for q in questions] == ["stop", "Five"]
    assert not TextVQA().correct(questions[1], "6")
    upload = TextVQA().submission(questions, said)["textvqa_results.json"]
    assert json.loads(upload) == [
        {"question_id": 34602, "answer": "stop sign"},
        {"question_id": 34603, "answer": "5"},
    ]


def test_a_split_without_answers_is_for_upload_only(folder: Path) -> None:
    path = folder / "TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    for row in content["data"]:
        del row["answers"]
    path.unlink()
    (folder / "TextVQA_0.5.1_test.json").write_text(json.dumps(content))
    assert [q.truth for q in TextVQA().read(folder, None)] == [None, None]


def test_nine_answers_are_refused(folder: Path) -> None:
    path = folder / "TextVQA_0.5.1_val.json"
    path.write_text(path.read_text().replace('"stop sign", ', ""))
    with pytest.raises(UserError, match=r"row 0: found 9 answers, expected 10"):
        TextVQA().read(folder, None)


@pytest.mark.parametrize("split", ["val", "train"])
def test_real_rows_score_as_m4c_defines(real_data: Path, tmp_path: Path, split: str) -> None:
    source = real_data / "benchmarks" / "textvqa"
    name = f"TextVQA_0.5.1_{split}.json"
    (tmp_path / name).write_bytes((source / name).read_bytes())
    questions = TextVQA().read(tmp_path, source)
    assert len(questions) == 5
    assert all(q.image is not None and q.image.is_file() for q in questions)
    spread = [a for q in questions for a in q.truth]
    random.Random(0).shuffle(spread)
    shuffled = {q.question_id: a for q, a in zip(questions, spread, strict=False)}
    for said in (best(questions), shuffled, {q.question_id: "nokia" for q in questions}):
        mean = sum(m4c_accuracy(said[q.question_id], q.truth) for q in questions) / 5
        assert TextVQA().score(questions, said)["accuracy"] == pytest.approx(100 * mean)
    most = sum(max(m4c_accuracy(a, q.truth) for a in q.truth) for q in questions) / 5
    assert TextVQA().score(questions, best(questions))["accuracy"] == pytest.approx(100 * most)


def best(questions: list[Question]) -> dict[str, str]:
    return {q.question_id: TextVQA().expected(q) for q in questions}
