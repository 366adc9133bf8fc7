"""MM-Vet and LLaVA-Bench: what a judge is told, what is read from its replies, and the figures."""

import json
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import write_jsonl
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.llava_bench import LLaVABench
from svit_jax.evaluation.mmvet import MMVet


def question(name: str, kind: str) -> Question:
    return Question(name, f"Q{name}?", None, None, kind, picture=f"{name}.png")


def test_mmvet_tells_the_judge_what_the_official_evaluator_does(tmp_path):
    row = {"imagename": "a.png", "question": "What is x?", "answer": "-1<AND>-5<OR>7"}
    (tmp_path / "mm-vet.json").write_text(json.dumps({"v1_0": {**row, "capability": ["ocr"]}}))
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["prompt = 'not this'"]},
            {"cell_type": "code", "source": ["!pip install openai"]},
            {"cell_type": "code", "source": ["n = 1\n", 'prompt = """Grade.\n', 'A | B\n"""']},
        ]
    }
    (tmp_path / "mm-vet_evaluator.ipynb").write_text(json.dumps(notebook))
    benchmark = MMVet()
    asked = benchmark.read(tmp_path, None)
    ask = benchmark.ask(tmp_path)
    first = ask(asked[0], "x = -1", 0)
    assert first.system == ""
    assert first.user == "Grade.\nA | B\n\nWhat is x? | -1 <AND> -5 <OR> 7 | x = -1 | "
    again = "\nPredict the correctness of the answer (digit): "
    assert ask(asked[0], "x = -1", 1).user == first.user + again
    (tmp_path / "mm-vet_evaluator.ipynb").write_text("{}")
    with pytest.raises(UserError, match="assigns no text to `prompt`"):
        benchmark.ask(tmp_path)
    (tmp_path / "mm-vet_evaluator.ipynb").unlink()
    with pytest.raises(UserError, match=r"put mm-vet_evaluator\.py or"):
        benchmark.ask(tmp_path)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", (0.5,)),
        ("1.0 because", (1.0,)),
        ("0", (0.0,)),
        ("1.2", None),
        ("-0.1", None),
        ("Score: 0.5", None),
        ("", None),
        ("0.5\nmore", None),
    ],
)
def test_mmvets_grades(reply, grade):
    assert MMVet().grade(reply) == grade


def test_mmvets_figures_are_means_of_runs():
    asked = [question("1", "ocr+rec"), question("2", "rec"), question("3", "rec+ocr")]
    runs = [
        {"1": (1.0,), "2": (0.5,), "3": (0.0,)},
        {"1": (0.4,), "2": (0.5,), "3": (0.0,)},
    ]
    assert MMVet().figures(asked, runs) == pytest.approx(
        {
            "total": (50 + 30) / 2,
            "ocr": (50 + 20) / 2,
            "rec": (50 + 30) / 2,
            "ocr+rec": (50 + 20) / 2,
            "rec alone": 50,
            "total_std": 10,
        }
    )


def llava_files(folder: Path) -> None:
    write_jsonl(
        folder / "questions.jsonl",
        [{"question_id": 0, "image": "001.jpg", "text": "Where?", "category": "conv"}],
    )
    write_jsonl(
        folder / "context.jsonl", [{"id": 0, "image": "001.jpg", "caption": ["A hill.", "A sea."]}]
    )
    write_jsonl(folder / "answers_gpt4.jsonl", [{"question_id": 0, "text": "By the sea."}])
    rules = {"llava_bench_conv": {"role": "Assistant", "prompt": "Rate both."}}
    (folder / "rule.json").write_text(json.dumps(rules))


def test_llava_bench_tells_the_judge_what_the_official_script_does(tmp_path):
    llava_files(tmp_path)
    benchmark = LLaVABench()
    asked = benchmark.read(tmp_path, None)
    told = benchmark.ask(tmp_path)(asked[0], "On a hill.", 0)
    system = "You are a helpful and precise assistant for checking the quality of the answer."
    assert told.system == system
    assert told.user == (
        "[Context]\nA hill.\nA sea.\n\n[Question]\nWhere?\n\n"
        "[Assistant 1]\nBy the sea.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nOn a hill.\n\n[End of Assistant 2]\n\n"
        "[System]\nRate both.\n\n"
    )


@pytest.mark.parametrize("file", ["rule.json", "context.jsonl", "answers_gpt4.jsonl"])
def test_llava_bench_names_the_file_that_lacks_something(tmp_path, file):
    llava_files(tmp_path)
    other = "{}" if file == "rule.json" else '{"question_id": 9, "image": "x", "text": "", '
    (tmp_path / file).write_text(other if other == "{}" else other + '"caption": ""}\n')
    benchmark = LLaVABench()
    asked = benchmark.read(tmp_path, None)
    with pytest.raises(UserError, match=file):
        benchmark.ask(tmp_path)(asked[0], "On a hill.", 0)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=file):
        benchmark.ask(tmp_path)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("8 6", (8.0, 6.0)),
        ("8.5,6\nAssistant 1 ...", (8.5, 6.0)),
        ("8, 6", None),  # two spaces once the comma is one: the official script refuses it, too
        ("8 6 ", None),
        ("Assistant 1: 8", None),
        ("8", None),
    ],
)
def test_llava_benchs_grades(reply, grade):
    assert LLaVABench().grade(reply) == grade


def test_llava_benchs_figures_round_as_the_official_summary():
    asked = [question("1", "conv"), question("2", "conv"), question("3", "complex")]
    grades = {"1": (8.0, 7.0), "2": (9.0, 4.0), "3": (-1.0, -1.0)}
    found = LLaVABench().figures(asked, [grades])
    assert found["conv"] == 64.7  # 5.5 / 8.5
    assert found["all"] == 62.5  # 3.333 / 5.333, means rounded to three places
    assert (found["gpt4"], found["model"]) == (53.3, 33.3)
    assert found["complex"] == 100.0  # the quirk: -1 beside -1


def test_tallies_are_the_official_figures():
    asked = [question(str(n), "rec" if n % 2 else "ocr+rec") for n in range(6)]
    grades = {str(n): (n / 10,) for n in range(6)}
    tally = MMVet().graded_tallies(asked, grades)["total"]
    assert tally.value == pytest.approx(MMVet().figures(asked, [grades])["total"])
    both = {str(n): (8.0 + n % 2, 3.0 + n) for n in range(6)}
    tally = LLaVABench().graded_tallies(asked, both)["all"]
    # Sums are 51 and 33; the official figure is of means rounded to three places.
    assert tally.value == pytest.approx(100 * 33 / 51)
    assert LLaVABench().figures(asked, [both])["all"] == pytest.approx(tally.value, abs=0.06)
