"""A run on a disk that is full says so, keeps its last good checkpoint, and goes on exactly."""

import errno
import os

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine
from svit_jax.checkpoints.manager import load_parameters, newest_checkpoint, stored_parameters
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")


def test_a_run_goes_on_when_there_is_room_again(trained, tmp_path, monkeypatch):
    """Checkpoints are due at 2, 4 and 6; the disk is full from 4 on."""

    def finalize(handler, directory):
        if int(directory.parent.name.partition(".")[0]) >= 4:
            no_room()

    with monkeypatch.context() as patched:
        patched.setattr(ocp.JsonCheckpointHandler, "finalize", finalize)
        with pytest.raises(UserError, match=r"step 6 .*no space left on device.* of step 2\."):
            train(trained.config, tmp_path)
    assert newest_checkpoint(tmp_path).name == "2"

    train(trained.config, tmp_path)
    assert newest_checkpoint(tmp_path).name == "6"
    assert read_metrics(tmp_path) == read_metrics(trained.workdir)
    ours, theirs = newest_checkpoint(tmp_path), newest_checkpoint(trained.workdir)
    shapes = stored_parameters(theirs)
    found, expected = (jax.device_get(load_parameters(each, shapes)) for each in (ours, theirs))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_workdir_that_can_not_be_written_is_one_sentence(make_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"workdir .*file/run can't be written .*not a directory"):
        train(make_run("finetune"), tmp_path / "file" / "run")
    monkeypatch.setattr(Quarantine, "__init__", no_room)
    with pytest.raises(UserError, match=r"some/file: no space left on device\); make room"):
        train(make_run("finetune"), tmp_path / "run")
