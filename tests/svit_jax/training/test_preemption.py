"""SIGTERM: a checkpoint at the step's end, exit code 143, and a resume that is exact."""

import os
import signal

import jax
import numpy as np
import pytest
from small_run import SMALL_RUN

from svit_jax.checkpoints.manager import load_parameters, newest_checkpoint, stored_parameters
from svit_jax.cli import main
from svit_jax.training import loop
from svit_jax.training.loop import train
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
