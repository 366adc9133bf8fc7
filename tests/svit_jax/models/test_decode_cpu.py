"""What decodes on a CPU in C: against NumPy in float64."""

import functools
import logging
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.models import decode_cpu
from svit_jax.sharding.rules import Placement

if not decode_cpu.compiled():
    pytest.skip("no C compiler compiles decode_cpu.c here", allow_module_level=True)

FLOAT32 = np.finfo(np.float32).eps


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 16, 17])
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (15, 2), (16, 3), (33, 5), (512, 1377)])
def test_a_product_of_few_rows(dtype, rows, inputs, outputs):
    kernel = 30 * drawn(outputs, inputs)
    kernel = jnp.asarray(kernel.round() if dtype == "int8" else kernel).astype(dtype)
    x = drawn(rows, inputs, seed=1)
    found = jax.jit(decode_cpu.few_rows)(kernel, jnp.asarray(x))
    wide = np.asarray(kernel.astype(jnp.float32), np.float64)
    # Each sum's own bound: float32's error in `inputs` products of these sizes.
    bound = FLOAT32 * inputs * (np.abs(x) @ np.abs(wide).T)
    assert np.all(np.abs(found - x.astype(np.float64) @ wide.T) <= bound)


def test_a_rows_product_is_the_same_beside_any_others():
    kernel, x = jnp.asarray(drawn(1376, 520)), jnp.asarray(drawn(16, 520, seed=1))
    alone = jnp.concatenate([decode_cpu.few_rows(kernel, row[None]) for row in x])
    for rows in (2, 3, 5, 8, 16):
        found = decode_cpu.few_rows(kernel, x[:rows])
        assert (np.asarray(found) == np.asarray(alone[:rows])).all()


@pytest.mark.parametrize("groups, size", [(1, 8), (2, 64), (4, 80), (1, 100), (3, 256)])
@pytest.mark.parametrize("slots", [1, 63, 64, 65, 200])
def test_attention_of_one_token_over_its_cache(groups, size, slots):
    rows, heads = 5, 3
    q, k, v = (
        drawn(*shape, seed=seed)
        for seed, shape in enumerate(
            [(rows, heads, groups, size), *[(rows, heads, slots, size)] * 2]
        )
    )
    positions = np.array([0, slots - 1, slots // 2, slots // 3, slots - 1])
    for row, position in enumerate(positions):  # what isn't seen isn't read
        k[row, :, position + 1 :] = v[row, :, position + 1 :] = np.nan
    found = jax.jit(decode_cpu.attend_cached)(*map(jnp.asarray, (q, k, v)), jnp.asarray(positions))
    for row, position in enumerate(positions):
        keys, values = (x[row, :, : position + 1].astype(np.float64) for x in (k, v))
        scores = np.einsum("KGH,KSH->KGS", q[row], keys) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        expected = np.einsum("KGS,KSH->KGH", weights, values)
        np.testing.assert_allclose(found[row], expected, rtol=2e-5, atol=2e-6)


def test_scores_far_apart_do_not_overflow():
    q = jnp.full((1, 1, 1, 16), 40.0)
    k = jnp.asarray(np.linspace(-40, 40, 130, dtype=np.float32))[None, None, :, None]
    v = jnp.asarray(drawn(1, 1, 130, 16))
    found = decode_cpu.attend_cached(q, jnp.broadcast_to(k, v.shape), v, jnp.array([129]))
    np.testing.assert_allclose(found[0, 0, 0], v[0, 0, -1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 5, 3, 8), (3, 40, 8, 64)])
def test_rotation(shape):
    rows, tokens, _, size = shape
    x, angles = drawn(*shape), drawn(rows, tokens, 1, size // 2, seed=1)
    cos, sin = np.cos(angles), np.sin(angles)
    found = jax.jit(decode_cpu.rotate)(*map(jnp.asarray, (x, cos, sin)))
    first, second = np.split(x.astype(np.float64), 2, axis=-1)
    expected = np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_where_it_decodes():
    mesh = jax.make_mesh((2,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    assert decode_cpu.suits(jnp.dtype("float32"), Placement(None, "cpu"))
    assert not decode_cpu.suits(jnp.dtype("bfloat16"), Placement(None, "cpu"))
    assert not decode_cpu.suits(jnp.dtype("float32"), Placement(None, "tpu"))
    assert not decode_cpu.suits(jnp.dtype("float32"), Placement(mesh, "cpu"))


def test_what_it_does_not_take_is_an_error():
    kernel, x = jnp.zeros((3, 4), jnp.float16), jnp.zeros((2, 4))
    with pytest.raises(Exception, match=r"svit_few_rows takes x \[B, I\] in float32"):
        decode_cpu.few_rows(kernel, x).block_until_ready()


@pytest.fixture
def new_process(monkeypatch, tmp_path):
    """What `compiled` is in a new process of a user whose cache folder is empty, and that folder.
    Its targets aren't registered: a process can do that once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda *args, **named: None)
    return lambda: functools.cache(decode_cpu.compiled.__wrapped__), tmp_path / "svit-jax"


def test_it_is_compiled_once_a_machine(new_process, monkeypatch):
    start, folder = new_process
    assert start()()
    (kept,) = folder.iterdir()
    assert kept.suffix == ".so"
    monkeypatch.setattr(subprocess, "run", None)
    assert start()()


def test_a_folder_that_others_write_to_is_not_used(new_process):
    start, folder = new_process
    folder.mkdir()
    folder.chmod(0o777)
    assert decode_cpu.cache_folder() is None
    assert start()() and not list(folder.iterdir())


@pytest.mark.parametrize("compiler, why", [("no-such-cc", "No such file"), ("false", "status 1")])
def test_without_a_compiler_xla_decodes(new_process, monkeypatch, caplog, compiler, why):
    start, folder = new_process
    monkeypatch.setenv("CC", compiler)
    compiled = start()
    with caplog.at_level(logging.WARNING):
        assert not compiled() and not compiled()
    (record,) = caplog.records
    assert "decoding is left to XLA" in record.getMessage() and why in record.getMessage()
    assert not list(folder.iterdir())
