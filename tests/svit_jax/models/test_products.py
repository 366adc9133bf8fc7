"""Products and SwiGLU, and their written-out gradients: against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.models.decoder import PROJECTIONS
from svit_jax.models.products import product, swiglu

SIZES = {"B": 2, "T": 5, "D": 6, "N": 3, "K": 2, "H": 4, "F": 7}


def drawn(*shapes: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal([SIZES[axis] for axis in axes]) for axes in shapes]


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_products_gradients(name):
    of_x, of_kernel, of_result = PROJECTIONS[name].replace("->", ",").split(",")
    x, kernel, g = drawn(of_x, of_kernel, of_result)
    found, pull = jax.vjp(
        lambda x, kernel: product(PROJECTIONS[name], x, kernel), jnp.float32(x), jnp.float32(kernel)
    )
    dx, dkernel = pull(jnp.float32(g))
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found, np.einsum(PROJECTIONS[name], x, kernel), **close)
    np.testing.assert_allclose(
        dx, np.einsum(f"{of_result},{of_kernel}->{of_x}", g, kernel), **close
    )
    np.testing.assert_allclose(
        dkernel, np.einsum(f"{of_x},{of_result}->{of_kernel}", x, g), **close
    )


def test_what_is_frozen_has_no_product_of_its_own():
    spec = PROJECTIONS["gate"]
    x, kernel = map(jnp.float32, drawn("BTD", "DF"))

    def products(argument: int) -> int:
        traced = jax.make_jaxpr(jax.grad(lambda *a: product(spec, *a).sum(), argument))(x, kernel)
        return str(traced).count("dot_general[")

    assert products(0) == products(1) == 2


def test_swiglus_gradients():
    """By central differences."""
    gate, up, g = drawn("BTF", "BTF", "BTF")

    def exact(gate, up):
        return gate / (1 + np.exp(-gate)) * up

    found, pull = jax.vjp(swiglu, jnp.float32(gate), jnp.float32(up))
    np.testing.assert_allclose(found, exact(gate, up), rtol=1e-5, atol=1e-6)
    step = 1e-6
    of_gate = (exact(gate + step, up) - exact(gate - step, up)) / (2 * step)
    of_up = (exact(gate, up + step) - exact(gate, up - step)) / (2 * step)
    for mine, theirs in zip(pull(jnp.float32(g)), (of_gate, of_up), strict=True):
        np.testing.assert_allclose(mine, g * theirs, rtol=1e-4, atol=1e-5)
