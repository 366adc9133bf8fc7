"""Checkpoints on disk: onto another mesh, of another model, of nothing."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.bundle import read_bundle, write_bundle
from svit_jax.checkpoints.manager import (
    Checkpoints,
    check_parameters,
    load_parameters,
    newest_checkpoint,
)
from svit_jax.checkpoints.retention import Retention
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.state import StatePlan, plan_state


def make_plan(config, devices: int, **axes: int) -> StatePlan:
    mesh = make_mesh(MeshConfig(**axes), jax.devices()[:devices])
    trainable = frozenset({"projector/fc1", "decoder/blocks/q"})
    return plan_state(config.model, trainable, optax.adam(1e-3), mesh, Rules())


@pytest.fixture(scope="module")
def saved(make_run, tmp_path_factory):
    """A state on eight devices and the folder it was saved to, as steps 3, 7 and 10."""
    plan = make_plan(make_run("finetune"), 8)
    state = plan.from_scratch(make_run("finetune").model, 0)
    random = np.random.default_rng(0)
    moments = jax.tree.map(
        lambda leaf: jax.device_put(
            (1000 * random.random(leaf.shape)).astype(leaf.dtype), leaf.sharding
        ),
        state.optimizer,
    )
    state = dataclasses.replace(state, optimizer=moments)
    workdir = tmp_path_factory.mktemp("saved") / "run"
    with Checkpoints(workdir / "checkpoints", Retention(keep=2)) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (3, 7, 10):
            checkpoints.save(step, state.parameters(), state.optimizer, {"plan": "p", "step": step})
    return workdir, state


def test_the_newest_are_kept(saved):
    workdir, _ = saved
    assert {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()} == {"7", "10"}
    # By number, not by name: "7" sorts after "10".
    assert newest_checkpoint(workdir).name == "10"
    assert newest_checkpoint(workdir / "checkpoints" / "7").name == "7"


def assert_same_bits(parameters, optimizer, state, plan) -> None:
    expected = state.parameters()
    assert parameters.keys() == expected.keys()
    for name, array in parameters.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert array.sharding.is_equivalent_to(plan.shardings.parameters()[name], array.ndim)
    assert jax.tree.structure(optimizer) == jax.tree.structure(state.optimizer)
    leaves = jax.tree.leaves(optimizer), jax.tree.leaves(state.optimizer)
    places = jax.tree.leaves(plan.shardings.optimizer)
    for found, true, place in zip(*leaves, places, strict=True):
        np.testing.assert_array_equal(found, true)
        assert found.sharding.is_equivalent_to(place, found.ndim)


def test_restore_onto_other_meshes_in_turn(saved, make_run, tmp_path):
    """Eight devices, then four along two axes, then one, each from what the one before saved."""
    folder, state = saved[0] / "checkpoints", saved[1]
    for devices, axes in ((8, {"tensor": 4}), (4, {"fsdp": 2, "tensor": 2}), (1, {})):
        plan = make_plan(make_run("finetune"), devices, **axes)
        with Checkpoints(folder) as checkpoints:
            parameters, optimizer, metadata = checkpoints.restore(
                10, plan.abstract.parameters(), plan.abstract.optimizer
            )
        assert metadata == {"plan": "p", "step": 10}
        assert {len(array.sharding.device_set) for array in parameters.values()} == {devices}
        assert_same_bits(parameters, optimizer, state, plan)
        folder = tmp_path / f"from_{devices}"
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(10, parameters, optimizer, metadata)


def test_parameters_alone_onto_one_device(saved, make_run):
    workdir, state = saved
    abstract = make_plan(make_run("finetune"), 1).abstract.parameters()
    loaded = load_parameters(newest_checkpoint(workdir), abstract)
    for name, array in state.parameters().items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_another_model_is_one_error_that_lists_keys(saved, make_run):
    workdir, _ = saved
    shapes = dict(make_plan(make_run("finetune"), 1).abstract.parameters())
    shapes["decoder/unembeding"] = shapes.pop("decoder/unembedding")
    shapes["projector/fc1"] = jax.ShapeDtypeStruct((64, 32), np.float32)
    with pytest.raises(UserError) as error:
        check_parameters(workdir / "checkpoints" / "10", shapes)
    text = str(error.value)
    assert "decoder/unembeding is missing (there is decoder/unembedding)" in text
    assert "decoder/unembedding is not in the model" in text
    assert "projector/fc1 has shape (64, 64), the model (64, 32)" in text
    assert "Use the config" in text and text.count("is of another model") == 1


def test_restore_checks_the_model(saved, make_run):
    workdir, _ = saved
    plan = make_plan(make_run("finetune", "model.decoder.mlp=64"), 1)
    with (
        Checkpoints(workdir / "checkpoints") as checkpoints,
        pytest.raises(UserError, match=r"decoder/blocks/down has shape \(2, 128, 64\)"),
    ):
        checkpoints.restore(10, plan.abstract.parameters(), plan.abstract.optimizer)


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere holds no checkpoint .* workdir of a training run"
    ):
        newest_checkpoint(tmp_path / "nowhere")
    unfinished = tmp_path / "run" / "checkpoints" / "5.orbax-checkpoint-tmp-1"
    unfinished.mkdir(parents=True)
    with pytest.raises(UserError, match="holds no checkpoint"):
        newest_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"has no model\.json; give the workdir"):
        read_bundle(tmp_path)


def test_relative_folders(saved, make_run, monkeypatch):
    """`svit train --workdir run` is how people write it."""
    workdir, state = saved
    monkeypatch.chdir(workdir.parent)
    abstract = make_plan(make_run("finetune"), 1).abstract.parameters()
    loaded = load_parameters(newest_checkpoint("run"), abstract)
    np.testing.assert_array_equal(loaded["projector/fc1"], state.trained["projector/fc1"])
    with Checkpoints("run/checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 10


def test_bundle_round_trips(make_run, tiny_data, tmp_path):
    model = make_run("finetune").model
    write_bundle(tmp_path, model, "plain", "crop", tiny_data.tokenizer, "legacy")
    bundle = read_bundle(tmp_path)
    assert bundle.model == model and (bundle.template, bundle.image_mode) == ("plain", "crop")
    assert bundle.after_eos == "legacy"
    assert (tmp_path / "tokenizer.model").read_bytes() == tiny_data.tokenizer.read_bytes()
    assert bundle.tokenizer == str(tmp_path / "tokenizer.model")


def test_a_bundle_of_before_after_eos_has_the_default(make_run, tiny_data, tmp_path):
    write_bundle(tmp_path, make_run("finetune").model, "v1", "pad", tiny_data.tokenizer, "4.37")
    content = json.loads((tmp_path / "model.json").read_text())
    del content["after_eos"]
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert read_bundle(tmp_path).after_eos == "4.31"


@pytest.mark.parametrize("content", [[], {}, {"vision": 3}, {"vision": {"colour": 1}}, "text"])
def test_bundle_of_another_version(tmp_path, content):
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"model\.json is of another version"):
        read_bundle(tmp_path)
