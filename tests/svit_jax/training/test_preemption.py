"""SIGTERM: a checkpoint at the step's end, exit code 143, and a resume that is exact."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_run import SMALL_RUN

from svit_jax.checkpoints.manager import (
    Checkpoints,
    load_parameters,
    newest_checkpoint,
    stored_parameters,
)
from svit_jax.cli import main
from svit_jax.training import loop
from svit_jax.training import preemption as preemption_module
from svit_jax.training.loop import train
from svit_jax.training.preemption import PreemptedError, Preemption
from svit_jax.training.telemetry import read_metrics


def terminate(*_) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_at_the_next_step_and_the_run_goes_on_exactly(trained, tmp_path):
    """Checkpoints are due at 2, 4, 6: the one of step 3 is there because of the signal."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(trained.config, tmp_path, hooks=((3, terminate),))
    assert stopped.value.code == 143
    assert "step 3 of 6 is saved" in str(stopped.value)
    assert newest_checkpoint(tmp_path).name == "3"
    assert signal.getsignal(signal.SIGTERM) is before

    train(trained.config, tmp_path)
    assert read_metrics(tmp_path) == read_metrics(trained.workdir)
    ours, theirs = newest_checkpoint(tmp_path), newest_checkpoint(trained.workdir)
    shapes = stored_parameters(theirs)
    found, expected = (jax.device_get(load_parameters(each, shapes)) for each in (ours, theirs))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_sigterm_while_starting_exits_at_once(tiny_data, configs, tmp_path, monkeypatch, capsys):
    def compile_run(*_):
        terminate()
        raise AssertionError("the signal did not stop the run")

    monkeypatch.setattr(loop, "compile_run", compile_run)
    data = f"--data.train={tiny_data.dataset}", f"--data.tokenizer={tiny_data.tokenizer}"
    overrides = [f"--{override}" for override in SMALL_RUN]
    config = f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"
    arguments = ["train", "--config", config, "--workdir", str(tmp_path), *data, *overrides]
    assert main(arguments) == 143
    assert "svit: stopped by SIGTERM while starting" in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()


def test_a_hook_is_broken_off_and_called_again(trained, tmp_path):
    """An evaluation of an hour must not use up the grace time: SIGTERM ends it where it stands."""
    calls = []

    def long(step, state):
        calls.append(step)
        if len(calls) == 1:
            terminate()
            time.sleep(3600)

    with pytest.raises(SystemExit) as stopped:
        train(trained.config, tmp_path, hooks=((3, long), (3, lambda *_: calls.append("other"))))
    assert stopped.value.code == 143 and newest_checkpoint(tmp_path).name == "3"
    assert calls == [3]  # and no other hook was begun
    train(trained.config, tmp_path, hooks=((3, long),))
    assert calls == [3, 3, 6]
    assert read_metrics(tmp_path) == read_metrics(trained.workdir)


def test_sigterm_in_a_save_lets_it_end(trained, tmp_path, monkeypatch):
    true = Checkpoints.save

    def save(checkpoints, step, *arguments):
        terminate()
        true(checkpoints, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(SystemExit) as stopped:
        train(trained.config, tmp_path)
    # Step 2 was being saved, and step 3 was under way before the signal was looked at.
    assert stopped.value.code == 143 and newest_checkpoint(tmp_path).name == "3"
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"2", "3"}


def test_what_is_broken_off_and_what_is_deferred(monkeypatch):
    done = []

    def break_off(preemption, work):
        with contextlib.suppress(PreemptedError), preemption.at_once():
            work()

    with monkeypatch.context() as patched, Preemption() as preemption:
        # It is a start alone that may be ended before anything is saved.
        patched.setattr(preemption_module, "_UNWIND_SECONDS", 0.0)
        preemption.defer()
        break_off(preemption, lambda: done.append("before"))
        break_off(preemption, lambda: (terminate(), time.sleep(60), done.append("late")))
        assert preemption.requested
        terminate()  # and again, outside: only noted
        break_off(preemption, lambda: done.append("after"))
    assert done == ["before"]
    with Preemption(), pytest.raises(PreemptedError):
        terminate()


STUCK = """
import hashlib, sys
from svit_jax.training.preemption import Preemption

with Preemption() as preemption:
    print("started", flush=True)
    # One instruction of Python that takes half an hour, as a compilation may.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_compilation_that_lasts_does_not_outlast_the_grace_time():
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        time.sleep(0.2)
        process.terminate()
        try:
            assert process.wait(timeout=120) == 143
        finally:
            process.kill()
        assert "svit: stopped by SIGTERM while starting" in process.stderr.read()
