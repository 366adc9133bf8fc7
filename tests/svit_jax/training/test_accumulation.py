"""Microbatches against the whole batch, and the loss's normalisation against its definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step_on_meshes import OPTIMIZER, SHAPE, random_batch

from data_pipeline.common.errors import UserError
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.svit import abstract_model, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.objective import normalised_weights
from svit_jax.training.program import compile_run
from svit_jax.training.settings import RunConfig


def uneven_batch(config: RunConfig):
    """Rows with very different numbers of targets; some with none."""
    batch = random_batch(config)
    weights = np.zeros_like(batch.loss_weights)
    for row, count in enumerate([1, 30, 2, 0, 17, 0, 5, 9]):
        weights[row, 10 : 10 + count] = 1
    return dataclasses.replace(batch, loss_weights=weights)


def one_update(config: RunConfig, mesh_config: MeshConfig, devices: int):
    """(metrics, Adam's moments after one update): the moments are the gradient, scaled."""
    plan, placement, step = compile_run(config, 10, make_mesh(mesh_config, jax.devices()[:devices]))
    state = plan.from_scratch(config.model, 0)
    state, metrics = step(state, placement.put(uneven_batch(config)))
    assert jax.tree.all(
        jax.tree.map(
            lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim),
            state,
            plan.shardings,
        )
    )
    return jax.device_get((metrics, jax.tree.leaves(state.optimizer)))


def assert_same(found, expected):
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, err_msg=name)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        scale = max(np.abs(theirs).max(), 1e-6)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * scale)


@pytest.fixture(scope="module")
def config(make_run) -> RunConfig:
    return make_run("finetune", *SHAPE, *OPTIMIZER, "train.loss_groups=0")


def changed(config: RunConfig, **train) -> RunConfig:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.fixture(scope="module")
def whole(config):
    return one_update(config, MeshConfig(), 1)


def test_accumulated_equals_the_whole_batch(config, whole):
    assert_same(one_update(changed(config, accumulate=4), MeshConfig(), 1), whole)


def test_loss_and_gradient_of_groups_are_means_of_their_means(config):
    """Four groups of two rows that divide by the targets of their own; in microbatches that cut
    across the groups, on a mesh that cuts them up as well."""
    model, batch = abstract_model(config.model), uneven_batch(config)
    parameters = jax.jit(lambda: flat_parameters(initial_model(config.model, 0)))()

    def by_hand(parameters):
        given = with_parameters(model, parameters)
        fields = (batch.tokens, batch.segment_ids, batch.positions, batch.images)
        hidden = given.hidden(*map(jnp.asarray, fields), jnp.asarray(batch.vision_index), compute)
        logits = given.decoder.unembed(hidden)[:, :-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.tokens[:, 1:])
        weights = batch.loss_weights[:, 1:]
        devices = [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
        means = [(losses[d] * weights[d]).sum() / weights[d].sum() for d in devices]
        return jnp.stack(means).mean()

    compute = config.compute
    value, gradients = jax.jit(jax.value_and_grad(by_hand))(parameters)
    trained = {p: g for p, g in gradients.items() if not p.startswith("tower/")}
    metrics, moments = one_update(
        changed(config, loss_groups=4, accumulate=2), MeshConfig(replica=2, fsdp=2), 4
    )
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.global_norm(trained), rtol=1e-4)
    assert float(metrics["target_tokens"]) == batch.loss_weights.sum()
    # Adam's first moment after one update is a tenth of the gradient.
    firsts = {p: 0.1 * np.asarray(g) for p, g in trained.items()}
    found = [leaf for leaf in moments if leaf.ndim][: len(firsts)]
    for (path, expected), mine in zip(sorted(firsts.items()), found, strict=True):
        scale = max(np.abs(expected).max(), 1e-6)
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5 * scale, err_msg=path)


def test_groups_without_targets_are_left_out():
    weights = np.array([[0, 1, 1, 1], [0, 0, 0, 1], [0] * 4, [0] * 4, [0, 1, 0, 0], [0] * 4])
    found = normalised_weights(jnp.asarray(weights, jnp.float32), 3)
    expected = weights * np.array([1 / 8, 1 / 8, 0, 0, 1 / 2, 0])[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    whole = normalised_weights(jnp.asarray(weights, jnp.float32), 0)
    np.testing.assert_allclose(whole, weights / 5, rtol=1e-6)
    assert not normalised_weights(jnp.zeros((4, 3)), 2).any()


@pytest.mark.parametrize(
    "train, message",
    [
        ({"accumulate": 3}, r"train\.accumulate=3 does not divide data\.batch_size=8"),
        ({"accumulate": 0}, r"train\.accumulate=0 does not divide"),
        ({"accumulate": 4}, r"microbatches of 2 rows, .* 4 devices that share rows"),
        ({"loss_groups": 3}, r"train\.loss_groups=3 does not divide data\.batch_size=8"),
        ({"loss_groups": -1}, r"train\.loss_groups=-1 does not divide"),
    ],
)
def test_rows_that_do_not_divide_are_errors(config, train, message):
    mesh = make_mesh(MeshConfig(fsdp=4), jax.devices()[:4])
    with pytest.raises(UserError, match=message):
        compile_run(changed(config, **train), 10, mesh)
