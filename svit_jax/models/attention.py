"""Attention behind one function, and the masks it takes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"] | None,
) -> Float[Array, "B T N H"]:
    """Scaled dot-product attention with grouped keys (N a multiple of K); softmax in float32.

    `mask` is True where a query may look; None lets it look everywhere.
    """
    mask = None if mask is None else mask[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask)


def packed_mask(segment_ids: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """True where a token of a packed row may look: at its own segment, not ahead.

    Segments [1 1 2 2 0]:   1 0 0 0 0
                            1 1 0 0 0
                            0 0 1 0 0
                            0 0 1 1 0
                            0 0 0 0 1   (padding looks at padding, so that no row of it is empty)
    """
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    length = segment_ids.shape[1]
    return same & jnp.tri(length, dtype=bool)[None]


def cache_mask(positions: Int[Array, "B T"], slots: int) -> Bool[Array, "B T S"]:
    """True where a token at `positions` may look in a cache whose slot s holds position s."""
    return jnp.arange(slots)[None, None, :] <= positions[:, :, None]
