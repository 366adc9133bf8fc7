"""A block's products and its gated activation, with gradients that are written out.

Derived by JAX, they ask a CPU for large arrays turned around, and keep more for the backward pass
than it needs.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(
    spec: str, x: Float[Array, "B T *I"], kernel: Float[Array, "..."]
) -> Float[Array, "B T *O"]:
    """The einsum of activations and a kernel whose axes are x's last and then the result's.

    In the kernel's gradient the smaller of x and the result's gradient is the left side, which is
    the one that XLA turns around on a CPU.
    """
    return jnp.einsum(spec, x, kernel)


def _product_backward(spec: str, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    axes = spec.replace("->", ",").split(",")
    dx = jnp.einsum(f"{axes[2]},{axes[1]}->{axes[0]}", g, kernel)
    if x.size <= g.size:
        return dx, jnp.tensordot(x, g, axes=((0, 1), (0, 1)))
    turned = jnp.tensordot(g, x, axes=((0, 1), (0, 1)))
    outputs = g.ndim - 2
    return dx, jnp.moveaxis(turned, range(outputs), range(-outputs, 0))


product.defvjp(lambda spec, x, kernel: (product(spec, x, kernel), (x, kernel)), _product_backward)


@jax.custom_vjp
def swiglu(gate: Float[Array, "B T F"], up: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
    """silu(gate) * up (Shazeer, arXiv 2002.05202); nothing else is kept for the gradient."""
    return jax.nn.silu(gate) * up


def _swiglu_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    gate, up = kept
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    return g * up * (share + silu * (1 - share)), g * silu


swiglu.defvjp(lambda gate, up: (swiglu(gate, up), (gate, up)), _swiglu_backward)
