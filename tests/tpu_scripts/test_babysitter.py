"""A run that is preempted, hangs and loses hosts goes on; one that can't is given up."""

import json
import random
import sys
from pathlib import Path

import pytest
from chaos import SETTINGS, make_inputs, same_bits

# Ends with the next of $STAND_IN/codes each time it is started; -1: it stays until it is killed.
PROGRAM = """
import json, os, pathlib, sys, time
root = pathlib.Path(os.environ["STAND_IN"])
codes = json.loads((root / "codes").read_text())
with (root / "starts").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
done = len((root / "starts").read_text().splitlines())
time.sleep(1000 if codes[done - 1] < 0 else 0)
sys.exit(codes[done - 1])
"""


@pytest.fixture
def program(stand_in):
    """Has the job end with these codes, one after the other."""

    def make(*codes: int, **settings) -> None:
        install = stand_in.program(PROGRAM)
        (stand_in.root / "codes").write_text(json.dumps(codes))
        stand_in.settings(install=install, **settings)

    return make


def starts(stand_in) -> list[str]:
    path = stand_in.root / "starts"
    return path.read_text().splitlines() if path.exists() else []


def events(stand_in) -> list[str]:
    log = stand_in.file.with_suffix(".babysitter.jsonl")
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_hangs_lost_processes_and_sigterm_are_started_again(stand_in, program, capsys):
    program(75, 76, 143, 134, 0, train=["--config=c"])
    stand_in.rules(waits=1)
    assert stand_in.svit("babysit") == 0
    assert starts(stand_in) == ["train --workdir=gs://bucket/svit --config=c"] * 5
    assert events(stand_in).count("ended") == 4
    assert events(stand_in)[-2:] == ["done", "deleted"]
    said = capsys.readouterr().out
    assert "started 5 times" in said and "nothing runs in project p" in said
    assert (stand_in.file.with_suffix(".babysitter.logs") / "svit-0.log").exists()
    assert stand_in.calls.count("queued-resources create") == 1


def test_a_preempted_slice_is_made_anew(stand_in, program):
    program(-1, -1, 0)
    lines = [{"file": str(stand_in.root / "starts"), "lines": n} for n in (1, 2)]
    stand_in.rules(preempt=lines)
    assert stand_in.svit("babysit") == 0
    assert len(starts(stand_in)) == 3
    assert events(stand_in).count("preempted") == stand_in.state["preempted"] == 2
    assert stand_in.calls.count("queued-resources create") == 3
    assert stand_in.state["requests"] == {}


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_of_the_run_itself_is_not_tried_again(stand_in, program, capsys, code):
    program(code)
    assert stand_in.svit("babysit") == 1
    assert len(starts(stand_in)) == 1
    assert "ended with an error of its own" in capsys.readouterr().out
    assert stand_in.state["nodes"] == {}


@pytest.mark.slow
def test_restarts_hours_and_money_have_limits(stand_in, program, capsys):
    program(*[75] * 9, max_restarts=2)
    assert stand_in.svit("babysit") == 1
    assert len(starts(stand_in)) == 3
    assert "started again max_restarts=2 times" in capsys.readouterr().out
    program(max_hours=0.0)
    assert stand_in.svit("babysit") == 1
    assert "max_hours=0 have passed" in capsys.readouterr().out
    # Ten minutes of eight chips at $900 cost $1200.
    program(budget=1000.0, price_per_chip_hour=900.0)
    assert stand_in.svit("babysit") == 1
    assert "beyond its budget of $1000.00" in capsys.readouterr().out
    assert stand_in.calls.count("queued-resources create") == 1
    assert stand_in.state["nodes"] == {}


@pytest.mark.slow
def test_hosts_that_do_not_answer_cost_a_new_slice(stand_in, program):
    program(0)
    stand_in.rules(fail=[{"match": "job.sh state", "times": 5}])
    assert stand_in.svit("babysit") == 0
    assert events(stand_in).count("no answer") == 5
    assert stand_in.calls.count("queued-resources create") == 2


def test_a_slice_that_is_to_be_kept_is_kept(stand_in, program, capsys):
    program(0)
    assert stand_in.svit("babysit", "--keep") == 0
    assert "RUNNING NOW: svit (" in capsys.readouterr().out


@pytest.mark.slow
def test_a_second_babysitter_takes_over(stand_in, program):
    """It is told nothing but the settings: the job that runs is not started again."""
    program(-1)
    assert [stand_in.svit("create"), stand_in.svit("start")] == [0, 0]
    stand_in.settings(install=stand_in.program(PROGRAM), max_hours=0.001)
    assert stand_in.svit("babysit") == 1
    assert len(starts(stand_in)) == 1


@pytest.mark.slow
def test_training_ends_with_the_same_bits_whatever_is_taken_away(stand_in, tmp_path):
    """Real training under slices that are preempted three times, at steps drawn at random, once
    with SIGTERM and twice without a word; against the same run left alone."""
    make_inputs(tmp_path / "inputs")
    config = Path(__file__).resolve().parents[2] / "configs" / "svit_v1_5_7b_finetune.py"
    data, tokenizer = tmp_path / "inputs" / "data", tmp_path / "inputs" / "tokenizer.model"
    keys = [f"data.train={data}", f"data.tokenizer={tokenizer}", *SETTINGS, "train.steps=60"]
    train = [f"--config={config}:tiny", *(f"--{key}" for key in keys)]

    def run(name: str, preempt: list) -> Path:
        workdir = tmp_path / name
        stand_in.settings(name=name, workdir=str(workdir), train=train, python=sys.executable)
        rules = [{"file": str(workdir / "metrics.jsonl"), **rule} for rule in preempt]
        stand_in.rules(waits=1, preempt=rules)
        assert stand_in.svit("babysit") == 0
        return workdir

    drawn = random.Random("babysitter/0")
    steps = sorted(drawn.sample(range(3, 55), 3))
    signals = drawn.sample(["TERM", "KILL", "KILL"], 3)
    preempt = [{"lines": n, "signal": s} for n, s in zip(steps, signals, strict=True)]
    taken = run("taken", preempt)
    assert stand_in.state["preempted"] == 3
    whole = run("whole", [])
    found = same_bits(taken, whole)
    assert found["parameters_identical"] and found["log_identical"] and found["last_step"] == 60
    goodput = json.loads((taken / "goodput.json").read_text())
    # A slice may be taken away before its training has begun.
    assert 1 < goodput["starts"] <= 4
