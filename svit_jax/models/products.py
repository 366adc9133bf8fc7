"""A block's products and its gated activation, with gradients that are written out.

Derived by JAX, they ask a CPU for large arrays turned around, and keep more for the backward pass
than it needs.
"""

import functools
from typing import Any

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


def _product_forward(spec: str, x: Any, kernel: Any) -> tuple[Array, tuple[Array | None, ...]]:
    """Keeps the kernel where x has a gradient, and x where the kernel has one."""
    kept = kernel.value if x.perturbed else None, x.value if kernel.perturbed else None
    return product(spec, x.value, kernel.value), kept


def _product_backward(
    spec: str, kept: tuple[Array | None, ...], g: Array
) -> tuple[Array | None, ...]:
    kernel, x = kept
    of_x, of_kernel, of_result = spec.replace("->", ",").split(",")
    dx = None if kernel is None else jnp.einsum(f"{of_result},{of_kernel}->{of_x}", g, kernel)
    return dx, None if x is None else _kernel_gradient(x, g)


def _kernel_gradient(x: Float[Array, "B T *I"], g: Float[Array, "B T *O"]) -> Array:
    if x.size <= g.size:
        return jnp.tensordot(x, g, axes=((0, 1), (0, 1)))
    turned = jnp.tensordot(g, x, axes=((0, 1), (0, 1)))
    outputs = g.ndim - 2
    return jnp.moveaxis(turned, range(outputs), range(-outputs, 0))


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


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
