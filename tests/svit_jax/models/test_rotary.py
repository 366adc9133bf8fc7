"""Rotary positions are a multiplication of complex numbers, and so is their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.models.decoder import Rotation, rotary

THETA = 500.0


def turned(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Pairs (h, h + H/2) as complex numbers, times e^(i position theta^(-2h/H)), in float64."""
    half = x.shape[-1] // 2
    angles = positions[:, :, None, None] * THETA ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_rotation_and_its_gradient(dtype, tolerance):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 2, 7, 3, 10))
    positions = rng.integers(0, 90, (2, 7))

    def rotated(x: jax.Array) -> jax.Array:
        return rotary(x, Rotation.of(jnp.asarray(positions), 10, THETA))

    found, pulled_back = jax.vjp(rotated, jnp.asarray(x, dtype))
    (gradient,) = pulled_back(jnp.asarray(g, dtype))
    assert found.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), turned(x, positions), atol=tolerance)
    # A rotation is orthogonal: its transpose turns back.
    np.testing.assert_allclose(gradient.astype(jnp.float32), turned(g, -positions), atol=tolerance)
