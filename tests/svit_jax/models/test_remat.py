"""Each way to recompute a layer: equal gradients, and the memory that its name promises."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from svit_jax.models.attention import Packed
from svit_jax.models.decoder import Decoder
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.remat import Remat
from svit_jax.models.vision_tower import VisionTower

BY_MEMORY = ["none", "dots", "qkv", "attention", "full"]
# On a CPU the host's memory is the same; training/test_step_for_tpu.py has what it is on a chip.
ALL = [*BY_MEMORY, "offload"]
LAYERS, ROWS, LENGTH = 8, 2, 64


def test_every_name_is_tested():
    assert list(get_args(Remat)) == ALL


def of_decoder(config):
    model = Decoder(dataclasses.replace(config.decoder, layers=LAYERS), nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((ROWS, LENGTH, config.decoder.embed)), jnp.float32)
    segments = jnp.asarray([[1] * 40 + [2] * 24] * ROWS)
    positions = jnp.asarray([[*range(40), *range(24)]] * ROWS)

    def run(model, remat):
        return model(x, positions, Packed(segments), remat=remat)[0]

    return model, run


def of_tower(config):
    model = VisionTower(dataclasses.replace(config.vision, layers=LAYERS + 1), nnx.Rngs(0))
    size = config.vision.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (12, size, size, 3)).astype(np.uint8)

    def run(model, remat):
        return model(jnp.asarray(pictures), jnp.dtype("float32"), remat)

    return model, run


@pytest.mark.parametrize("backend", ["xla", "splash", "cpu"])
def test_nothing_is_kept_twice(small_config, backend):
    """The numbers that a layer's forward pass hands to the backward pass: what its scan stacks."""
    config = dataclasses.replace(small_config.decoder, layers=LAYERS)
    model, length = Decoder(config, nnx.Rngs(0)), 128
    x = jnp.ones((ROWS, length, config.embed))
    positions = jnp.zeros((ROWS, length), jnp.int32)
    seen = Packed(positions + 1)

    def kept(remat):
        def loss(x):
            return model(x, positions, seen, remat=remat, backend=backend)[0].sum()

        equations = jax.make_jaxpr(jax.grad(loss))(x).eqns
        forward = next(e for e in equations if e.primitive.name == "scan")
        stacked = [out.aval for out in forward.outvars if out.aval.shape[:1] == (LAYERS,)]
        return sum(array.size for array in stacked if array.dtype == jnp.float32) // LAYERS

    a_head = ROWS * length * config.head_dim
    attended = config.heads * a_head
    if backend != "xla":
        attended += ROWS * length * config.heads  # the kernel's sums over keys
    queries_keys_values = (config.heads + 2 * config.kv_heads) * a_head
    assert kept("full") == x.size
    assert kept("attention") == x.size + attended
    assert kept("qkv") == kept("offload") == x.size + attended + queries_keys_values


@pytest.mark.slow
@pytest.mark.parametrize("part", [of_decoder, of_tower])
def test_equal_gradients_in_less_memory(small_config, part):
    model, run = part(small_config)
    parameters = flat_parameters(model)
    memory, gradients = [], []
    for remat in ALL:

        def loss(parameters, remat=remat):
            return jnp.sin(run(with_parameters(model, parameters), remat)).sum()

        compiled = jax.jit(jax.grad(loss)).lower(parameters).compile()
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
        gradients.append(compiled(parameters))
    # In exact arithmetic the keys' bias has no gradient: softmax ignores what all scores share.
    scales = {path: np.abs(value).max() for path, value in gradients[0].items()}
    scales |= {"blocks/k_bias": scales.get("blocks/q_bias")}
    for remat, found in zip(ALL[1:], gradients[1:], strict=True):
        for path, value in gradients[0].items():
            what = f"{remat}: {path}"
            np.testing.assert_allclose(
                found[path], value, rtol=1e-4, atol=1e-5 * scales[path], err_msg=what
            )
    memory = memory[: len(BY_MEMORY)]
    assert memory == sorted(memory, reverse=True) and len(set(memory)) == len(memory)
    # What all layers but one keep of a block's products is several times a layer's input.
    assert memory[0] > 2 * memory[-1]
