"""Logs that any JSON reader reads, the summary's figures, and the account of a run's time."""

import json
import math
import sys
from types import SimpleNamespace

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.training.flops import StepFlops, Work
from svit_jax.training.goodput import Goodput, goodput_table, read_goodput
from svit_jax.training.reporter import Speedometer, summary_line
from svit_jax.training.telemetry import (
    MetricsLog,
    Stopwatch,
    last_metrics,
    read_metrics,
    require_wandb,
)


def strict_rows(path) -> list[dict]:
    """As a reader sees them that knows no NaN."""

    def refuse(constant):
        raise ValueError(constant)

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_logs_are_strict_json_and_read_back_as_they_were(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": math.nan, "gradient_norm": math.inf, "accuracy": -math.inf, "n": 2})
    log.write_timings(1, {"seconds_per_step": 0.5})
    log.close()
    (row,) = strict_rows(tmp_path / "metrics.jsonl")
    assert row == {
        "step": 1,
        "loss": "NaN",
        "gradient_norm": "Infinity",
        "accuracy": "-Infinity",
        "n": 2,
    }
    (found,) = read_metrics(tmp_path)
    assert math.isnan(found["loss"]) and found["gradient_norm"] == math.inf
    assert (found["accuracy"], found["step"]) == (-math.inf, 1)
    assert strict_rows(tmp_path / "timings.jsonl") == [{"step": 1, "seconds_per_step": 0.5}]
    MetricsLog(tmp_path, 1).close()
    assert strict_rows(tmp_path / "metrics.jsonl") == [row]


def test_an_evaluation_of_the_step_that_a_run_goes_on_from_is_done_again(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (2, 4):
        log.write(step, {"loss": 1.0 / step})
        log.write(step, {"heldout_loss": 2.0 / step})
    log.close()
    assert last_metrics(tmp_path) == {"loss": 0.25, "heldout_loss": 0.5}
    MetricsLog(tmp_path, 4).close()
    assert [row.keys() - {"step"} for row in read_metrics(tmp_path)] == [
        {"loss"},
        {"heldout_loss"},
        {"loss"},
    ]


class HeldWatch(Stopwatch):
    """A stopwatch that goes on when it is told to."""

    wall = 0.0


def watch_of(wall: float, **seconds: float) -> Stopwatch:
    watch = HeldWatch()
    advance(watch, wall, **seconds)
    return watch


def advance(watch: Stopwatch, wall: float, **seconds: float) -> None:
    watch.wall += wall
    for name, value in seconds.items():
        watch.seconds[name] += value


def test_speed_is_of_the_steps_and_not_of_the_pauses(tmp_path):
    """100 tokens, 2,000 pairs, 4 pictures and 50 targets in 8 of 20 seconds, on 2 devices."""
    watch = watch_of(5.0, data=1.0, hook=2.0)
    flops = StepFlops(Work(10, 1, 100, 4), Work(14, 2, 100, 5))
    speed = Speedometer(watch, flops, peak=2 * 4000.0)
    advance(watch, 20.0, data=2.0, hook=7.0, checkpoint=5.0, step=6.0)
    speed.add(Work(60, 1000, 2, 20))
    speed.add(Work(40, 1000, 2, 30))
    rates = speed.read()
    model = 10 * 100 + 1 * 2000 + 100 * 4 + 4 * 50
    expected = {
        "seconds_per_step": 4.0,
        "tokens_per_second": 100 / 8,
        "flops_per_second": model / 8,
        "data_wait": 2 / 8,
        "mfu": model / 8 / 8000,
        "hfu": (14 * 100 + 2 * 2000 + 100 * 4 + 5 * 50) / 8 / 8000,
    }
    assert rates == pytest.approx(expected)
    line = summary_line(30, 40, 1.5, rates, left=3700.0)
    assert line == (
        "step 30/40, loss 1.5000, 12.5 tokens/s, MFU 5.6% (HFU 9.5%), data wait 25.0%, left 1:01:40"
    )

    unknown = Speedometer(watch, flops, peak=None)
    advance(watch, 1.0)
    unknown.add(Work(100_000, 0, 0, 0))
    rates = unknown.read()
    assert "mfu" not in rates and "hfu" not in rates
    line = summary_line(1, 2, math.nan, rates, left=0.0)
    assert line.startswith("step 1/2, loss nan, 100k tokens/s, 1 MFLOP/s, ")


def test_the_account_sums_to_the_wall_and_knows_what_was_lost(tmp_path):
    """Two starts. The first saves step 10 after 8 s of steps and 1 s of data, goes on to step 14
    and is killed; the second begins again at step 10."""
    path = tmp_path / "goodput.json"
    watch = watch_of(12.0, step=8.0, data=1.0, compile=2.0)
    first = Goodput(path, watch)
    first.resume(0)
    first.mark(10)
    advance(watch, 5.0, step=4.0, hook=0.5)
    first.write()
    report = read_goodput(tmp_path)
    assert report["wall_seconds"] == pytest.approx(17.0)
    assert report["seconds"]["other"] == pytest.approx(17 - 12 - 1 - 2 - 0.5)
    assert report["seconds"]["lost"] == 0

    second = Goodput(path, watch_of(6.0, step=5.0, compile=0.5, checkpoint=0.25))
    second.resume(10)
    second.write()
    report = read_goodput(tmp_path)
    assert report["starts"] == 2
    assert report["wall_seconds"] == pytest.approx(23.0)
    assert sum(report["share"].values()) == pytest.approx(1.0)
    seconds = report["seconds"]
    assert seconds == pytest.approx(
        {
            "step": 8 + 5,
            "data": 1.0,
            "compile": 2.5,
            "checkpoint": 0.25,
            "evaluation": 0.0,
            "lost": 4.5,
            "other": 1.5 + 0.25,
        },
    )
    table = goodput_table(report).splitlines()
    assert table[0].endswith("s in 2 starts:") and len(table) == 8
    assert table[1].split() == ["step", "13.0", "s", "56.5%"]


def test_a_run_without_a_checkpoint_lost_all_its_steps(tmp_path):
    path = tmp_path / "goodput.json"
    Goodput(path, watch_of(9.0, step=4.0, data=2.0, compile=3.0)).write()
    again = Goodput(path, watch_of(0.0))
    again.resume(0)
    seconds = again.seconds()
    assert (seconds["lost"], seconds["compile"]) == pytest.approx((6.0, 3.0))
    assert seconds["step"] == seconds["data"] == 0


def test_wandb_gets_one_run_over_all_starts(tmp_path, monkeypatch):
    calls = []

    def init(**arguments):
        calls.append(("init", arguments))
        return SimpleNamespace(
            log=lambda scalars, step: calls.append((step, scalars)),
            finish=lambda: calls.append(("finish", {})),
        )

    fake = SimpleNamespace(init=init, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for start in (0, 1):
        log = MetricsLog(tmp_path / "run", start, "project", {"optim": {"learning_rate": 1.0}})
        log.write(start + 1, {"loss": 2.0})
        log.write_timings(start + 1, {"mfu": 0.5})
        log.close()
    inits = [arguments for name, arguments in calls if name == "init"]
    assert inits[0] == inits[1]
    assert (inits[0]["project"], inits[0]["name"], inits[0]["resume"]) == (
        *("project", "run"),
        "allow",
    )
    assert inits[0]["config"] == {"optim": {"learning_rate": 1.0}}
    assert calls[1:4] == [(1, {"loss": 2.0}), (1, {"timing/mfu": 0.5}), ("finish", {})]


def test_wandb_that_is_not_installed_is_one_sentence(monkeypatch):
    require_wandb("")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"train\.wandb=mine, but .* install 'svit-jax\[wandb\]'"):
        require_wandb("mine")
