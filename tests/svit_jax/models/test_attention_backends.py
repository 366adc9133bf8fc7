"""Every backend of attention on packed rows, forward and backward, against a dense softmax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipeline.common.errors import UserError
from svit_jax.models import attention_gpu
from svit_jax.models.attention import (
    DECODER_AXES,
    TOWER_AXES,
    Packed,
    attention,
    cached_attention,
    kernel_for,
)
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Placement, Rules, active_rules

ROWS, LENGTH, HEADS, KV_HEADS, HEAD_DIM = 2, 256, 2, 1, 64

# Segments end within a kernel's block of 128 and at its edge, span it, and are one token long.
SEGMENTS = np.zeros((ROWS, LENGTH), np.int32)
for row, ends in enumerate([(1, 128, 250), (200, 201)]):
    for number, (start, end) in enumerate(zip((0, *ends), ends, strict=False), start=1):
        SEGMENTS[row, start:end] = number


def drawn(length: int, kv_heads: int = KV_HEADS) -> tuple[jax.Array, ...]:
    """Queries, keys, values, and what the result's gradient is."""
    rng = np.random.default_rng(0)
    heads = (HEADS, kv_heads, kv_heads, HEADS)
    shapes = [(ROWS, length, count, HEAD_DIM) for count in heads]
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


def mesh_of(config: MeshConfig) -> Mesh:
    sizes = [size if size > 0 else 1 for size in config.shape]
    fixed = MeshConfig(*sizes)
    return make_mesh(fixed, jax.devices()[: math.prod(sizes)])


def dense(q, k, v, segments):
    """Written apart from the model: float32 scores of all pairs, the unseen at minus infinity.
    `segments` None: all see all."""
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest") / np.sqrt(q.shape[3])
    if segments is not None:
        length = segments.shape[1]
        ahead = np.arange(length)[None, :] > np.arange(length)[:, None]
        other = segments[:, :, None] != segments[:, None, :]
        scores = jnp.where((other | ahead[None])[:, None], -jnp.inf, scores)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return jnp.einsum("bnts,bsnh->btnh", weights, v, precision="highest")


def with_gradients(function, q, k, v, cotangent):
    @jax.jit
    def run(q, k, v, cotangent):
        out, pull = jax.vjp(function, q, k, v)
        return out, pull(cotangent)

    out, gradients = run(q, k, v, cotangent)
    return [np.asarray(x) for x in (out, *gradients)]


def assert_close(found, expected):
    for name, mine, theirs in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5 * scale, err_msg=name)


@pytest.fixture(scope="module")
def expected_packed():
    return with_gradients(lambda q, k, v: dense(q, k, v, SEGMENTS), *drawn(LENGTH))


@pytest.mark.parametrize("backend", ["xla", "splash", "gpu", "cpu"])
def test_packed_rows_with_grouped_keys(backend, expected_packed):
    seen = Packed(jnp.asarray(SEGMENTS))
    found = with_gradients(lambda q, k, v: attention(q, k, v, seen, backend), *drawn(LENGTH))
    assert_close(found, expected_packed)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("splash", marks=pytest.mark.slow),
        pytest.param("gpu", marks=pytest.mark.slow),
        "cpu",
    ],
)
def test_rows_that_are_no_multiple_of_a_block(backend):
    segments = SEGMENTS[:, :200]
    seen = Packed(jnp.asarray(segments))
    found = with_gradients(lambda q, k, v: attention(q, k, v, seen, backend), *drawn(200))
    assert_close(found, with_gradients(lambda q, k, v: dense(q, k, v, segments), *drawn(200)))


@pytest.mark.parametrize("backend", ["xla", "splash", "gpu", "cpu"])
def test_a_towers_tokens_are_padded_and_masked(backend):
    """145 tokens, a class token and 144 patches, fill no block, as a real tower's 577."""
    arrays = drawn(145, HEADS)
    found = with_gradients(lambda q, k, v: attention(q, k, v, None, backend, TOWER_AXES), *arrays)
    assert_close(found, with_gradients(lambda q, k, v: dense(q, k, v, None), *arrays))


@pytest.mark.parametrize(
    "backend, config",
    [
        ("splash", MeshConfig(fsdp=2, sequence=2)),
        ("gpu", MeshConfig(fsdp=2)),
        pytest.param("splash", MeshConfig(replica=2, tensor=2), marks=pytest.mark.slow),
        pytest.param("gpu", MeshConfig(replica=2, tensor=2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_packed_rows_on_a_mesh(backend, config):
    mesh, seen = mesh_of(config), Packed(jnp.asarray(SEGMENTS))
    arrays = drawn(LENGTH, HEADS)

    def sharded(q, k, v):
        with active_rules(mesh, Rules()):
            return attention(q, k, v, seen, backend, DECODER_AXES)

    expected = with_gradients(lambda q, k, v: dense(q, k, v, SEGMENTS), *arrays)
    assert_close(with_gradients(sharded, *arrays), expected)


def test_pictures_over_the_whole_mesh():
    arrays = drawn(145, HEADS)

    def sharded(q, k, v):
        with active_rules(mesh_of(MeshConfig(fsdp=1, tensor=2)), Rules()):
            return attention(q, k, v, None, "gpu", TOWER_AXES)

    expected = with_gradients(lambda q, k, v: dense(q, k, v, None), *arrays)
    assert_close(with_gradients(sharded, *arrays), expected)


def queries(rows=4, heads=4, head_dim=128, dtype=jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, 256, heads, head_dim), dtype)


def chosen(backend, q, platform, config=None) -> str:
    mesh = mesh_of(config) if config else None
    axes = (("replica", "fsdp"), "sequence", "tensor") if config else (None, None, None)
    kernel = kernel_for(backend, q, Placement(mesh, platform, *axes))
    return kernel.__name__.rpartition("_")[2] if kernel else "xla"


def test_auto_takes_the_platforms_kernel_where_it_fits():
    assert chosen("auto", queries(), "cpu") == "cpu"
    assert chosen("auto", queries(), "cpu", MeshConfig(fsdp=2)) == "xla"
    assert chosen("auto", queries(), "tpu") == "splash"
    assert chosen("auto", queries(head_dim=64), "tpu") == "splash"
    assert chosen("auto", queries(head_dim=16), "tpu") == "xla"
    assert chosen("auto", queries(rows=3), "tpu", MeshConfig(fsdp=8)) == "xla"
    assert chosen("auto", queries(), "tpu", MeshConfig(fsdp=1, sequence=8)) == "splash"
    assert chosen("auto", queries(), "gpu") == "gpu"
    assert chosen("auto", queries(dtype=jnp.float32), "gpu") == "xla"
    assert chosen("auto", queries(), "gpu", MeshConfig(fsdp=4, sequence=2)) == "xla"
    assert chosen("xla", queries(), "tpu") == "xla"


@pytest.mark.parametrize(
    "backend, platform, q, mesh, message",
    [
        ("splash", "gpu", queries(), None, "attention=splash can't run here: .* platform 'gpu'"),
        ("gpu", "tpu", queries(), None, "attention=gpu can't run here: .* platform 'tpu'"),
        ("cpu", "gpu", queries(), None, "attention=cpu can't run here: .* platform 'gpu'"),
        ("cpu", "cpu", queries(), MeshConfig(fsdp=2), "it is written for one device"),
        ("splash", "tpu", queries(head_dim=80), None, "heads have 80 numbers, .* multiples of 64"),
        ("gpu", "gpu", queries(dtype=jnp.float32), None, "activations are float32"),
        ("gpu", "gpu", queries(), MeshConfig(sequence=2), r"mesh\.sequence is not 1"),
        ("splash", "tpu", queries(heads=6), MeshConfig(tensor=4), "6 heads do not divide over 4"),
        ("splash", "tpu", queries(rows=6), MeshConfig(fsdp=8), "6 rows do not divide over 8"),
    ],
)
def test_a_kernel_that_is_asked_for_and_can_not_run_is_an_error(
    backend, platform, q, mesh, message
):
    with pytest.raises(UserError, match=message):
        chosen(backend, q, platform, mesh)


@pytest.mark.skipif(
    jax.__version_info__ >= (0, 11), reason="this JAX lowers Triton kernels where a GPU is alone"
)
@pytest.mark.parametrize("causal, head_dim", [(True, 128), (False, 64)])
def test_the_gpu_kernel_lowers_to_triton(causal, head_dim):
    """For CUDA, on a machine without it: forward, what prepares backward, and backward."""
    q, k = queries(head_dim=head_dim), queries(heads=2, head_dim=head_dim)
    segments = jax.ShapeDtypeStruct((4, 256), jnp.int32)

    def loss(q, k, v, segments):
        out = attention_gpu.fused(q, k, v, segments, causal, Placement(None, "gpu"), False)
        return out.astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, segments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @__gpu$xla.gpu.triton(") == 3


def test_over_a_cache_each_token_sees_the_slots_up_to_its_own():
    q, k, v, _ = drawn(4)
    positions = np.array([2, 0])
    found = cached_attention(
        q[:, :1], k.swapaxes(1, 2), v.swapaxes(1, 2), jnp.asarray(positions)[:, None]
    )
    for row, last in enumerate(positions):
        seen = slice(row, row + 1), slice(0, last + 1)
        expected = dense(q[row : row + 1, :1], k[seen], v[seen], None)
        np.testing.assert_allclose(found[row : row + 1], expected, rtol=1e-4, atol=1e-5)
