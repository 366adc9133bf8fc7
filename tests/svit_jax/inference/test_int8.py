"""Weights and cache in int8: the rounding is what the formula says, and answers hardly change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_prompts import FLOAT32, NEVER, make_prompt

from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.engine import Engine
from svit_jax.inference.sampler import GREEDY
from svit_jax.models.decoder import Cache
from svit_jax.models.int8 import attach_scales, has_scales, in_int8
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

KERNELS = {  # of one layer: how many axes are inputs
    **dict.fromkeys(("q", "k", "v", "gate", "up", "down"), 1),
    "o": 2,
}


@pytest.fixture(scope="module")
def prompts(model):
    return [make_prompt(model, n, length) for n, length in enumerate((31, 40, 25))]


def engine_of(model, parameters, int8_cache=False, mesh=None) -> Engine:
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    shared = FLOAT32, mesh, Rules(), NEVER, 4
    return Engine(model.config, parameters, *shared, int8_cache=int8_cache)


def rounded(kernel: np.ndarray, inputs: int) -> np.ndarray:
    """By the formula, a column at a time: what the int8 kernel times its scale must be."""
    flat = kernel.reshape(np.prod(kernel.shape[:inputs]), -1)
    found = np.zeros_like(flat)
    for column in range(flat.shape[1]):
        scale = np.float32(abs(flat[:, column]).max()) / np.float32(127)
        found[:, column] = np.round(flat[:, column] / scale) * scale
    return found.reshape(kernel.shape)


def test_kernels_are_rounded_by_output_channel_and_all_else_stays(model):
    parameters = flat_parameters(model)
    found = in_int8(parameters)
    assert has_scales(found) and not has_scales(parameters)
    for name, inputs in KERNELS.items():
        path = f"decoder/blocks/{name}"
        scale = np.asarray(found.pop(f"{path}_scale"))
        int8, kernel = np.asarray(found.pop(path)), np.asarray(parameters[path])
        assert int8.dtype == np.int8 and abs(int8.astype(int)).max() == 127
        assert scale.shape == (kernel.shape[0], *kernel.shape[1 + inputs :])
        for layer in range(len(kernel)):
            back = int8[layer] * scale[layer]
            np.testing.assert_allclose(back, rounded(kernel[layer], inputs), rtol=1e-6, atol=1e-8)
    assert len(found) == len(parameters) - len(KERNELS)
    assert all(found[path] is parameters[path] for path in found)


def test_it_answers_as_the_model_with_the_rounded_weights(model, prompts):
    parameters = flat_parameters(model)
    plain = dict(parameters)
    for name, inputs in KERNELS.items():
        path = f"decoder/blocks/{name}"
        layers = [rounded(layer, inputs) for layer in np.asarray(parameters[path])]
        plain[path] = jnp.asarray(np.stack(layers))
    expected = list(engine_of(model, plain).generate(prompts, 12))
    found = list(engine_of(model, in_int8(parameters)).generate(prompts, 12))
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)


def test_scales_lie_where_their_channels_do(model):
    structure = abstract_model(model.config)
    attach_scales(structure.decoder.blocks)
    axes = logical_axes(structure)
    for name in KERNELS:
        path = f"decoder/blocks/{name}"
        outputs = axes[f"{path}_scale"][1:]
        assert axes[path][-len(outputs) :] == outputs


def test_a_cache_is_rounded_vector_by_vector():
    rng = np.random.default_rng(0)
    k, v = rng.normal(size=(2, 1, 3, 4, 2, 8)).astype(np.float32)
    k[0, 1, 2, 0] = 0  # no scale of 0
    cache = Cache(jnp.asarray(k), jnp.asarray(v)).in_int8()
    scale = abs(k).max(-1) / 127
    scale[0, 1, 2, 0] = 1
    np.testing.assert_allclose(cache.k_scale, scale, rtol=1e-6)
    np.testing.assert_array_equal(cache.k, np.round(k / scale[..., None]).astype(np.int8))
    back, _ = cache.of_layer(jnp.int32(0), jnp.float32)
    assert abs(np.asarray(back) - k[0]).max() <= scale.max() / 2 + 1e-6


def test_a_cache_in_int8_changes_probabilities_little(model, prompts):
    exact = list(engine_of(model, flat_parameters(model)).generate(prompts, 8))
    found = list(engine_of(model, flat_parameters(model), int8_cache=True).generate(prompts, 8))
    assert [len(one.tokens) for one in found] == [8, 8, 8]
    logs = [
        (one.tokens[:2] == other.tokens[:2], one.log_probabilities, other.log_probabilities)
        for one, other in zip(found, exact, strict=True)
    ]
    # The first token comes from prefill, which does not read the cache.
    assert all(one[0] == pytest.approx(other[0], abs=1e-6) for _, one, other in logs)
    seconds = [(one[1], other[1]) for same, one, other in logs if same]
    assert seconds
    for second, of_exact in seconds:
        assert second != of_exact
        assert second == pytest.approx(of_exact, abs=0.05)


def test_continuous_batching_in_int8_gives_each_what_it_gets_alone(model, prompts):
    engine = engine_of(model, in_int8(flat_parameters(model)), int8_cache=True)
    expected = [answer.tokens for answer in engine.generate(prompts, 10)]
    found: dict[int, list[int]] = {n: [] for n in range(3)}
    rows = ContinuousEngine(engine, rows=2, max_length=128)
    for n, prompt in enumerate(prompts):
        rows.submit(prompt, 10, GREEDY, lambda new, last, n=n: found[n].extend(t.id for t in new))
    rows.close(drain=True)
    assert list(found.values()) == expected


@pytest.mark.slow
def test_a_mesh_gives_the_same(model, prompts):
    alone = engine_of(model, in_int8(flat_parameters(model)), True)
    expected = [answer.tokens for answer in alone.generate(prompts, 6)]
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4), jax.devices()[:8])
    parameters = flat_parameters(model)
    shardings = tree_shardings(mesh, Rules(), parameters, logical_axes(model))
    placed = {path: jax.device_put(x, shardings[path]) for path, x in parameters.items()}
    found = engine_of(model, in_int8(placed), True, mesh).generate(prompts, 6)
    assert [answer.tokens for answer in found] == expected
