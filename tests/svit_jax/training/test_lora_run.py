"""A LoRA run from a base checkpoint: how it begins, that it resumes exactly, that it answers."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import svit_jax
from svit_jax.checkpoints.bundle import read_bundle
from svit_jax.checkpoints.manager import load_parameters, newest_checkpoint, stored_parameters
from svit_jax.models.lora import is_lora, merge
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.loop import train
from svit_jax.training.optimizer import trainable_paths
from svit_jax.training.settings import RunConfig
from svit_jax.training.start import initial_state
from svit_jax.training.state import StatePlan, plan_state
from svit_jax.training.step import dropout_key
from svit_jax.training.telemetry import read_metrics

LORA = (
    "train.steps=4",
    "model.lora.rank=4",
    "model.lora.dropout=0.2",
    "optim.learning_rate=5e-3",
    "optim.warmup_ratio=0.1",
)


@pytest.fixture(scope="module")
def config(make_run, trained) -> RunConfig:
    return make_run("lora", *LORA, f"checkpoint.init={trained.workdir}")


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("lora") / "run"
    train(config, workdir)
    return workdir


def read(checkpoint) -> dict[str, np.ndarray]:
    """A checkpoint's parameters as they are stored, on one device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {
        path: jax.ShapeDtypeStruct(tuple(found.shape), found.dtype, sharding=sharding)
        for path, found in stored_parameters(checkpoint).items()
    }
    return jax.device_get(load_parameters(checkpoint, shapes))


def plan_of(config: RunConfig) -> StatePlan:
    paths = trainable_paths(config.optim.trainable, flat_parameters(abstract_model(config.model)))
    mesh, dtype = make_mesh(config.mesh), config.compute.frozen_dtype
    return plan_state(config.model, paths, optax.adam(1.0), mesh, config.rules, dtype)


def test_begins_with_the_base_and_fresh_lora(config, trained):
    state = initial_state(config, plan_of(config))
    base = read(newest_checkpoint(trained.workdir))
    assert all(array.dtype == np.float32 for array in base.values())
    for path, array in jax.device_get(state.parameters()).items():
        if is_lora(path):
            assert array.any() == path.endswith("/a") and array.dtype == np.float32
        elif path.startswith("projector/"):
            np.testing.assert_array_equal(array, base[path], err_msg=path)
        else:
            assert array.dtype == jnp.bfloat16
            rounded = jnp.asarray(base[path]).astype(jnp.bfloat16)
            np.testing.assert_array_equal(array, rounded, err_msg=path)
    assert state.frozen.keys() == {p for p in base if not p.startswith("projector/")}


def test_interrupted_and_resumed_equals_uninterrupted(config, run, tmp_path):
    """Dropout is drawn from seed and step, so it is the same after a resume."""

    class StopError(Exception):
        pass

    def stop(step, state):
        raise StopError

    workdir = tmp_path / "run"
    with pytest.raises(StopError):
        train(config, workdir, hooks=((3, stop),))
    train(config, workdir)
    assert read_metrics(workdir) == read_metrics(run)
    ours, theirs = read(newest_checkpoint(workdir)), read(newest_checkpoint(run))
    assert {p for p, array in theirs.items() if array.dtype == np.float32} == {
        p for p in theirs if is_lora(p) or p.startswith("projector/")
    }
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
        assert not is_lora(path) or array.any()


def test_dropout_keys_differ_by_seed_and_step():
    data = {
        tuple(jax.random.key_data(dropout_key(seed, jnp.int32(step))).tolist())
        for seed in range(3)
        for step in range(5)
    }
    assert len(data) == 15


def test_goes_on_from_a_lora_checkpoint(config, run):
    """A second run finds LoRA's parameters in the checkpoint and takes them."""
    again = dataclasses.replace(
        config, checkpoint=dataclasses.replace(config.checkpoint, init=str(run))
    )
    state = initial_state(again, plan_of(again))
    stored = read(newest_checkpoint(run))
    for path, array in jax.device_get(state.parameters()).items():
        np.testing.assert_array_equal(array, stored[path], err_msg=path)


def test_workdir_answers_as_the_merged_model(config, run, tiny_data):
    assert read_bundle(run).model == config.model
    assistant = svit_jax.load(run, parameter_dtype="float32")
    engine = assistant.engine
    assert engine.config.lora == config.model.lora
    assert {array.dtype for array in engine.parameters.values()} == {jnp.dtype("float32")}
    picture = sorted(tiny_data.pictures.rglob("*.jpg"))[0]
    answer = assistant.answer(picture, "What is this?", 6)

    base = dataclasses.replace(config.model, lora=None)
    merged = merge(engine.parameters, config.model.lora)
    assert merged.keys() == flat_parameters(abstract_model(base)).keys()
    plain = type(engine)(base, merged, engine.compute, engine.mesh, engine.rules, engine.eos_id)
    assert (
        dataclasses.replace(assistant, engine=plain).answer(picture, "What is this?", 6) == answer
    )
