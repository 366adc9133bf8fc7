"""Answers graded by a judge on loopback: kept replies, failed calls, the report, comparisons."""

import json
from pathlib import Path

import pytest
from judge_server import JudgeServer

from data_pipeline.common.files import write_jsonl
from data_pipeline.toy_world.generate import generate_world
from svit_jax.cli import main
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
from svit_jax.evaluation.judged import Judged, read_verdict
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


def test_a_failed_call_is_no_grade_and_is_made_again(toy, tmp_path, capsys):
    """A call that the endpoint refuses says nothing of the answer; a withheld reply does."""
    broken = True

    def rule(body) -> str | int | None:
        if "answer 2." in last_message(body) and broken:
            return 400
        return None if "answer 3." in last_message(body) else "8 6"

    write_answers(toy, tmp_path, "llava_bench", lambda q, truth: f"answer {q.question_id}.")
    with JudgeServer(rule) as server:
        assert judge(toy, tmp_path, "llava_bench", server.url) == 1
        assert "no reply about 1 answers (the first is to question 2: bad_request: 400" in (
            capsys.readouterr().err
        )
        assert not (tmp_path / "llava_bench.judged.json").exists()
        broken = False
        assert judge(toy, tmp_path, "llava_bench", server.url, "--dry-run") == 0
        left = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (left["calls"], left["graded"]) == (1, SCENES - 1)
        assert judge(toy, tmp_path, "llava_bench", server.url) == 0
    assert len(server.calls) == SCENES + 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["unreadable"] == 1
    # 23 answers get 6 beside 8, the withheld one -1 beside -1.
    sixes, eights = (round((23 * grade - 1) / SCENES, 3) for grade in (6, 8))
    assert found["figures"]["all"] == round(100 * sixes / eights, 1)


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


def test_what_a_limited_run_answered_is_graded_when_asked_for(toy, tmp_path, capsys):
    questions = write_answers(toy, tmp_path, "mmvet", lambda q, truth: truth)
    path = tmp_path / "mmvet.answers.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    with JudgeServer(exact_mmvet) as server:
        assert judge(toy, tmp_path, "mmvet", server.url) == 1
        assert "or grade those that it answered with --answered" in capsys.readouterr().err
        assert judge(toy, tmp_path, "mmvet", server.url, "--answered") == 0
    assert len(server.calls) == 5
    answers = {row["question_id"]: row["text"] for row in map(json.loads, path.open())}
    limited = questions[4::-1]  # a limited run may hold them in another order
    verdict = read_verdict(tmp_path, "mmvet", answers, limited)
    assert verdict is not None and verdict.figures["total"] == 100.0


def test_two_graded_runs_are_compared_by_one_judge_alone(toy, tmp_path, capsys):
    """The second run has 18 of 24 answers right, the first 6 of those."""
    with JudgeServer(exact_mmvet) as server:
        for out, right in (("a", 6), ("b", 18)):
            ones = {f"v1_{n}" for n in range(right)}
            write_answers(
                toy, tmp_path / out, "mmvet", lambda q, t, o=ones: t if q.question_id in o else "?"
            )
            assert judge(toy, tmp_path / out, "mmvet", server.url) == 0
        capsys.readouterr()
        folders = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
        command = [*folders, "--data", str(toy / "benchmarks"), "--json"]
        assert main(command) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["first"], found["second"]) == (25.0, 75.0)
        assert (found["only_first"], found["only_second"]) == (0, 12)
        assert found["p_value"] == pytest.approx(2 / 2**12)
        (tmp_path / "b" / "mmvet.judge.jsonl").unlink()
        assert judge(toy, tmp_path / "b", "mmvet", server.url, "--model", "another") == 0
    capsys.readouterr()
    assert main(command) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == []
    assert "mmvet is not compared: it was graded by stand-in and another" in output.err


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
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    rows = {row[1]: row[2:-1] for row in cells if len(row) > 6}
    # Nothing is like the truth: 4 beside 8 every time, whatever pictures are drawn.
    assert rows["LLaVA-W, own judge"][:2] == ["50.0", "50.0 to 50.0"]
    assert rows["LLaVA-W"] == ["\u2013"] * 4 + ["69.5", "72.5"]
    assert rows["MM-Vet"][-2:] == ["38.3", "36.1"]
    assert (tmp_path / "mmvet.upload" / "mmvet_results.json").exists()
