"""A run in which nothing gets done ends in bounded time, and its stacks say where it stood."""

import subprocess
import sys

import pytest
from small_run import SMALL_RUN

HANG = """
import sys, threading, time
from pathlib import Path
from svit_jax.training.watchdog import Watchdog

def stands_here(): threading.Event().wait()
def helper_stands_here(): threading.Event().wait()

threading.Thread(target=helper_stands_here, daemon=True).start()
with Watchdog(2, Path(sys.argv[1])) as watchdog:
    for _ in range(6):
        time.sleep(0.5)
        watchdog.beat()
    print("beats kept it alive", flush=True)
    stands_here()
"""

NO_HANG = """
import time
from pathlib import Path
from svit_jax.training.watchdog import Watchdog

with Watchdog(0.2, Path("never")):
    pass
with Watchdog(0, Path("never")):
    time.sleep(0.5)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


def test_a_hang_dumps_every_stack_and_exits_with_75(tmp_path):
    stacks = tmp_path / "run" / "stacks.txt"
    found = python(HANG, str(stacks))
    assert (found.returncode, found.stdout) == (75, "beats kept it alive\n"), found.stderr
    assert "nothing got done in 2 seconds" in found.stderr
    for text in (found.stderr, stacks.read_text()):
        assert "in stands_here" in text and "in helper_stands_here" in text


def test_what_ended_or_is_not_watched_goes_on():
    assert python(NO_HANG).returncode == 0


TRAIN = """
import sys, threading
from svit_jax.cli import main
from svit_jax.training import inputs, loop

true = inputs.make_loader

def loader_that_hangs(*arguments, **keywords):
    for loaded in true(*arguments, **keywords):
        if loaded.step == 3:
            threading.Event().wait()
        yield loaded

inputs.make_loader = loader_that_hangs
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_training_run_that_hangs_ends(tiny_data, configs, tmp_path):
    data = f"--data.train={tiny_data.dataset}", f"--data.tokenizer={tiny_data.tokenizer}"
    overrides = [f"--{override}" for override in (*SMALL_RUN, "train.hang_seconds=30")]
    config = f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"
    workdir = str(tmp_path / "run")
    command = ["train", "--config", config, "--workdir", workdir, *data, *overrides]
    found = python(TRAIN, *command)
    assert found.returncode == 75, found.stderr
    assert "in loader_that_hangs" in (tmp_path / "run" / "stacks.txt").read_text()
