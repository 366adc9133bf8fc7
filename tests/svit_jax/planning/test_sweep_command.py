"""`svit plan --sweep` and `--find-best` from options to output, with closed-form plans in place of
children; and what SIGTERM leaves of real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_planner import StandIn

from svit_jax.cli.main import main
from svit_jax.planning.sweep import cache, children


class Planner:
    def __init__(self, command):
        self._command = command

    def __call__(self, candidate):
        words = self._command(candidate)
        assert "--json" in words and f"--data.batch_size={candidate.batch_size}" in words
        return StandIn(capacity=32)(candidate)

    def stop(self):
        pass


@pytest.fixture
def plan(monkeypatch, tmp_path, configs, capsys):
    monkeypatch.setattr(children, "ChildPlanner", Planner)
    monkeypatch.setattr(cache, "FOLDER", str(tmp_path / "plans"))

    def run(*options):
        spec = f"{configs}/svit_v1_5_7b_finetune.py:tiny+packed"
        code = main(["plan", "--config", spec, "--topology", "h100:8", "--json", *options])
        said = capsys.readouterr()
        return (json.loads(said.out) if said.out else said.err), code

    return run


def test_a_sweep_and_again_from_the_cache(plan, tmp_path):
    options = ("--sweep", "--rows", "1", "3", "--remat", "full", "--data.batch_size=8")
    file = str(tmp_path / "plans.csv")
    first, code = plan(*options, "--csv", file, "--html", str(tmp_path / "plans.html"))
    assert code == 0 and first["compiles"] > 0
    rows = [(row["tensor"], row["rows_per_device"]) for row in first["candidates"]]
    assert sorted(rows) == [(tensor, rows) for tensor in (1, 2, 4, 8) for rows in (1, 3)]
    reasons = {row["reason"] for row in first["candidates"] if row["rows_per_device"] == 3}
    assert all("a step has 8 rows, and 3 at a time" in reason for reason in reasons)
    assert len((tmp_path / "plans.csv").read_text().splitlines()) == 9
    page = (tmp_path / "plans.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "All plans, ranked" in page
    second, _ = plan(*options)
    assert second["candidates"] == first["candidates"]
    assert (second["compiles"], second["from_cache"]) == (0, first["compiles"])


def test_the_best_is_that_of_the_grid(plan):
    """With all sizes of all axes, which --find-best tries without being told."""
    some = ("--remat", "dots", "full", "--rows", "1", "2", "4", "--data.batch_size=8")
    every = [f"{axis}=any" for axis in ("replica", "tensor", "sequence")]
    climb, code = plan("--find-best", *some)
    grid, _ = plan("--sweep", "--no-cache", "--meshes", *every, *some)
    assert code == 0 and climb["compiles"] < grid["compiles"]
    assert climb["candidates"][0] == grid["candidates"][0]
    assert climb["candidates"][0]["status"] == "fits"


# The planner of a candidate is a process that starts another, as a GPU's plan does, and waits.
SLEEPERS = r"""
import sys
from svit_jax.cli import main, sweep
from svit_jax.planning.sweep import cache

cache.FOLDER = sys.argv[1]
child = (
    "import os, subprocess, sys\n"
    "inner = subprocess.Popen(['sleep', '60'])\n"
    "open(sys.argv[1] + '/began', 'w').write(f'{os.getpid()} {inner.pid}')\n"
    "inner.wait()\n"
)
sweep._command = lambda candidate: [sys.executable, "-c", child, sys.argv[1]]
sys.exit(main(sys.argv[2:]))
"""


def alive(process: int) -> bool:
    """Whether it runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["--sweep", "--find-best"])
def test_sigterm_ends_the_children(tmp_path, configs, kind):
    spec = f"{configs}/svit_v1_5_7b_finetune.py:tiny+packed"
    options = ("plan", "--config", spec, "--topology", "h100:8", kind, "--data.batch_size=8")
    sweep = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS, str(tmp_path), *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    began = tmp_path / "began"
    while not (began.exists() and len(began.read_text().split()) == 2):
        assert sweep.poll() is None, sweep.stderr.read()
        time.sleep(0.05)
    children = [int(process) for process in began.read_text().split()]
    assert all(map(alive, children))
    sweep.send_signal(signal.SIGTERM)
    said = sweep.communicate(timeout=60)[1]
    assert sweep.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; run the same command again" in said
    assert not any(map(alive, children))


def test_what_the_command_refuses(plan):
    for options, text in (
        (("--meshes", "tensors=2"), "--meshes has 'tensors=2'"),
        (("--rows", "0"), "at least one row"),
        (("--mesh", "fsdp=8"), "--mesh is one plan's"),
    ):
        said, code = plan("--sweep", *options)
        assert code == 1 and text in said
