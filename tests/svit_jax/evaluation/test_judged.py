"""MM-Vet and LLaVA-Bench: what a judge is told, what is read from its replies, and the figures."""

import json
from pathlib import Path

import pytest
from judge_server import JudgeServer

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import write_jsonl
from data_pipeline.toy_world.generate import generate_world
from svit_jax.cli import main
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
from svit_jax.evaluation.judged import Judged, read_verdict
from svit_jax.evaluation.llava_bench import LLaVABench
from svit_jax.evaluation.mmvet import MMVet
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import evaluate

NAMES = ("mmvet", "llava_bench")
SCENES = 24


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    generate_world(root, train_scenes=1, held_out_scenes=SCENES, novel_scenes=0, seed=3)
    return root / "held_out"


@pytest.fixture(autouse=True)
def key(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


def question(name: str, kind: str) -> Question:
    return Question(name, f"Q{name}?", None, None, kind, picture=f"{name}.png")


def last_message(body) -> str:
    return body["messages"][-1]["content"]


def judge(toy: Path, out: Path, name: str, url: str, *more: str) -> int:
    data, ours = ("--data", str(toy / "benchmarks")), ("--out", str(out))
    endpoint = ("--model", "stand-in", "--base-url", url, "--concurrency", "4", "--tries", "1")
    return main(["judge", "--benchmark", name, *data, *ours, *endpoint, "--json", *more])


def write_answers(toy: Path, out: Path, name: str, say) -> list[Question]:
    """Answers as svit eval leaves them; `say` takes a question and the true answer."""
    questions = BENCHMARKS[name].read(toy / "benchmarks" / name, toy / "images")
    folder = toy / "benchmarks" / name
    if name == "mmvet":
        rows = json.loads((folder / "mm-vet.json").read_text())
        truth = {key: row["answer"] for key, row in rows.items()}
    else:
        rows = [json.loads(line) for line in (folder / "answers_gpt4.jsonl").open()]
        truth = {str(row["question_id"]): row["text"] for row in rows}
    write_jsonl(
        out / f"{name}.answers.jsonl",
        [
            {"question_id": q.question_id, "prompt": q.text, "text": say(q, truth[q.question_id])}
            for q in questions
        ],
    )
    return questions


def exact_mmvet(body) -> str:
    """A judge that knows the truth from the prompt's last row: 1.0 where it is the prediction."""
    cells = last_message(body).split("\n")[-1].split(" | ")
    return "1.0" if cells[1] == cells[2] else "0.0"


def exact_llava(body) -> str:
    """Eight for what GPT-4 says, four for anything else."""
    one, other = (
        last_message(body).split(f"[Assistant {n}]\n")[1].split("\n\n[End")[0] for n in (1, 2)
    )
    return f"8 {8 if one == other else 4}\nBecause."


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


@pytest.mark.parametrize(("name", "rule"), [("mmvet", exact_mmvet), ("llava_bench", exact_llava)])
def test_the_truth_gets_the_maximum_and_a_constant_what_theory_says(
    toy, tmp_path, capsys, name, rule
):
    head = "total" if name == "mmvet" else "all"
    assert isinstance(BENCHMARKS[name], Judged)
    with JudgeServer(rule) as server:
        write_answers(toy, tmp_path / "true", name, lambda q, truth: truth)
        assert judge(toy, tmp_path / "true", name, server.url) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["figures"][head] == 100.0
        assert len(server.calls) == SCENES
        sent = server.calls[0]
        assert sent["temperature"] == BENCHMARKS[name].temperatures[0]
        assert sent["max_tokens"] == BENCHMARKS[name].reply_tokens
        assert len(sent["messages"]) == (1 if name == "mmvet" else 2)

        truths = []
        write_answers(toy, tmp_path / "same", name, lambda q, t: truths.append(t) or "red")
        assert judge(toy, tmp_path / "same", name, server.url) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
    share = truths.count("red") / SCENES
    expected = 100 * share if name == "mmvet" else 50.0
    assert found["figures"][head] == pytest.approx(expected, abs=0.1)
    assert 0 < share < 1 or name == "llava_bench"


def test_what_a_killed_run_knows_is_not_asked_again(toy, tmp_path, capsys):
    """The budget stops the first run in its middle; the second asks for the rest alone."""
    write_answers(toy, tmp_path, "mmvet", lambda q, truth: truth)
    with JudgeServer(exact_mmvet) as server:
        assert judge(toy, tmp_path, "mmvet", server.url, "--max-total-tokens", "1500") == 1
        assert "budget is used up" in capsys.readouterr().err
        before = len(server.calls)
        assert 0 < before < SCENES
        assert not (tmp_path / "mmvet.judged.json").exists()
        assert judge(toy, tmp_path, "mmvet", server.url) == 0
        assert len(server.calls) == SCENES
        again = [last_message(body) for body in server.calls]
        assert len(set(again)) == SCENES
        capsys.readouterr()
        assert judge(toy, tmp_path, "mmvet", server.url) == 0
        assert len(server.calls) == SCENES
    # Other answers are another judgement.
    write_answers(toy, tmp_path, "mmvet", lambda q, truth: "red")
    assert judge(toy, tmp_path, "mmvet", server.url) == 1
    assert "other inputs" in capsys.readouterr().err


def test_an_unreadable_reply_is_asked_for_again_and_warmer(toy, tmp_path, capsys):
    def rule(body) -> str:
        hard = "v1_0 " in last_message(body)
        never = "v1_1 " in last_message(body)
        return "The" if never or (hard and body["temperature"] < 0.5) else "1.0"

    write_answers(toy, tmp_path, "mmvet", lambda q, truth: f"{q.question_id} ")
    with JudgeServer(rule) as server:
        assert judge(toy, tmp_path, "mmvet", server.url, "--runs", "2") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    asked = [b for b in server.calls if "v1_0 " in last_message(b)]
    assert [b["temperature"] for b in asked] == [0, 0, 0, 0, 0.5, 0.5]
    assert sum("Predict the correctness" in last_message(b) for b in asked) == 4
    assert sum("v1_1 " in last_message(b) for b in server.calls) == 10
    assert found["unreadable"] == 2  # once in each run
    assert found["figures"]["total"] == pytest.approx(100 * (SCENES - 1) / SCENES)
    grades = json.loads(next((tmp_path / "mmvet.reviews").iterdir()).read_text())
    assert grades["v1_1"] == {
        "model": ["stand-in"] * 2,
        "content": ["The"] * 2,
        "score": [0.0] * 2,
    }


def test_a_dry_run_calls_nobody(toy, tmp_path, capsys):
    write_answers(toy, tmp_path, "llava_bench", lambda q, truth: truth)
    prices = ("--price-input", "10", "--price-output", "30")
    assert judge(toy, tmp_path, "llava_bench", "http://127.0.0.1:9", "--dry-run", *prices) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["calls"] == SCENES and found["output_tokens_at_most"] == 1024 * SCENES


def test_missing_answers_are_named(toy, tmp_path, capsys):
    questions = write_answers(toy, tmp_path, "mmvet", lambda q, truth: truth)
    lines = (tmp_path / "mmvet.answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "mmvet.answers.jsonl").write_text("".join(lines[1:]))
    assert judge(toy, tmp_path, "mmvet", "http://127.0.0.1:9") == 1
    assert f"the first is {questions[0].question_id}" in capsys.readouterr().err


def test_score_says_who_grades(toy, tmp_path, capsys):
    write_answers(toy, tmp_path, "mmvet", lambda q, truth: truth)
    file = str(tmp_path / "mmvet.answers.jsonl")
    data = str(toy / "benchmarks" / "mmvet")
    assert main(["score", "--benchmark", "mmvet", "--predictions", file, "--data", data]) == 1
    assert "svit judge" in capsys.readouterr().err


def test_a_verdict_holds_for_its_answers_alone(toy, tmp_path, capsys):
    questions = write_answers(toy, tmp_path, "mmvet", lambda q, truth: truth)
    with JudgeServer(exact_mmvet) as server:
        judge(toy, tmp_path, "mmvet", server.url)
    rows = [json.loads(line) for line in (tmp_path / "mmvet.answers.jsonl").open()]
    answers = {row["question_id"]: row["text"] for row in rows}
    assert read_verdict(tmp_path, "mmvet", answers, questions).figures["total"] == 100.0
    assert read_verdict(tmp_path, "mmvet", answers | {"v1_0": "x"}, questions) is None
    assert read_verdict(tmp_path / "none", "mmvet", answers, questions) is None


def test_the_report_has_the_verdict_beside_the_published_figures(toy, tmp_path, capsys):
    def answer_all(asked):
        yield from ("red" for _ in asked)

    data, images = toy / "benchmarks", toy / "images"
    runs = evaluate(answer_all, "m", list(NAMES), data, images, tmp_path)
    write_eval_report(tmp_path, EvalReport("m", "toy", runs))
    assert "24 answers for a judge" in (tmp_path / "report.md").read_text()
    with JudgeServer(exact_llava) as server:
        assert judge(toy, tmp_path, "llava_bench", server.url) == 0
    verdict = read_verdict(
        tmp_path, "llava_bench", runs["llava_bench"].answers, runs["llava_bench"].questions
    )
    write_eval_report(tmp_path, EvalReport("m", "toy", runs, judged={"llava_bench": verdict}))
    text = (tmp_path / "report.md").read_text()
    assert "Graded once by stand-in" in text and "24 answers for a judge" in text
    row = next(line for line in text.splitlines() if line.startswith("| LLaVA-W"))
    assert "50.0" in row and "72.5" in row
    assert (tmp_path / "mmvet.upload" / "mmvet_results.json").exists()
