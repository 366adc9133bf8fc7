"""A run whose workdir and dataset are in a bucket that can neither rename nor append.

Its checkpoints are kept on the local disk here: Orbax writes arrays to buckets through TensorStore,
which a stand-in behind `etils.epath` does not reach.
"""

import dataclasses
import shutil

import pytest
from fake_bucket import use_fake_bucket

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.bundle import read_bundle
from svit_jax.checkpoints.manager import Checkpoints
from svit_jax.training import loop
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics


class StopError(Exception):
    pass


def stop(step, state):
    raise StopError


def test_a_run_in_a_bucket_equals_a_local_one(trained, tiny_data, tmp_path, monkeypatch):
    use_fake_bucket(monkeypatch, tmp_path / "objects")
    shutil.copytree(tiny_data.dataset, tmp_path / "objects" / "b" / "data")
    places = []

    def kept_here(folder, retention):
        places.append(str(folder))
        return Checkpoints(tmp_path / "checkpoints", retention)

    monkeypatch.setattr(loop, "Checkpoints", kept_here)
    data = dataclasses.replace(
        trained.config.data, train="gs://b/data", cache=str(tmp_path / "cache")
    )
    config = dataclasses.replace(trained.config, data=data)
    with pytest.raises(StopError):
        train(config, "gs://b/run", hooks=((3, stop),))
    objects = tmp_path / "objects" / "b" / "run"
    assert len((objects / "metrics.jsonl").read_text().splitlines()) == 3
    result = train(config, "gs://b/run")
    assert result.step == 6 and set(places) == {"gs://b/run/checkpoints"}
    assert read_metrics("gs://b/run") == read_metrics(trained.workdir)
    assert read_bundle("gs://b/run").model == config.model
    names = {path.name for path in objects.iterdir()}
    expected = {path.name for path in trained.workdir.iterdir()} - {"checkpoints"}
    assert names == expected and list((objects / "tensorboard").iterdir())

    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    with pytest.raises(UserError, match=r"gs://b/run belongs to another run .*train\.seed"):
        train(other, "gs://b/run")
