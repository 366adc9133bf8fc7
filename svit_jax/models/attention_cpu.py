"""Attention on a CPU: a block of queries at a time, over the keys that it may see, and scores that
are made anew for the backward pass.

Kept for it, the scores of all layers would pass through memory in every step; and of the pairs of
tokens a causal mask leaves out almost half, which blocks pass over. The backward pass is that of
FlashAttention (arXiv 2205.14135, appendix B).
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from svit_jax.models.remat import ATTENTION
from svit_jax.sharding.rules import Placement

Queries = Float[Array, "B T N H"] | jax.ShapeDtypeStruct

PLATFORM = "cpu"
BLOCK = 1
"""Lengths are multiples of this: any."""

_BLOCKS = 4
"""Of queries: they pass over 3/8 of the pairs; eight would pass over 7/16, and compile longer."""

_UNSEEN = -1e30
"""Added to a score, it leaves nothing of it."""


def obstacle(q: Queries, place: Placement) -> str | None:
    """Why it can't take these queries, if so."""
    if place.mesh is not None and place.mesh.size > 1:
        return "it is written for one device"
    return None


def fused(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    causal: bool,
    place: Placement,
    interpret: bool,
) -> Float[Array, "B T N H"]:
    """Attention within segments, not ahead if `causal`."""
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    return _attention(q, k, v, segments, causal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T N H"],
    v: Float[Array, "B T N H"],
    segments: Int[Array, "B T"],
    causal: bool,
) -> Float[Array, "B T N H"]:
    return _forward(q, k, v, segments, causal)[0]


def _forward(q: Array, k: Array, v: Array, segments: Array, causal: bool) -> tuple[Array, tuple]:
    kept = q, k, v, segments
    q, k, v = _heads_first(q * q.shape[3] ** -0.5, k, v)
    outs, sums = [], []
    for queries, keys in _blocks(q.shape[2], causal):
        scores = _product("BNTH,BNSH->BNTS", q[:, :, queries], k[:, :, keys])
        scores += _unseen(segments, queries, keys, causal)
        largest = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(-1, keepdims=True)
        out = _product("BNTS,BNSH->BNTH", weights.astype(v.dtype), v[:, :, keys])
        outs.append((out / total).astype(q.dtype))
        sums.append((largest + jnp.log(total))[..., 0])
    out = checkpoint_name(jnp.concatenate(outs, axis=2).swapaxes(1, 2), ATTENTION)
    log_sum = checkpoint_name(jnp.concatenate(sums, axis=2), ATTENTION)
    return out, (*kept, out, log_sum)


def _backward(causal: bool, kept: tuple[Array, ...], g: Array) -> tuple[Array | None, ...]:
    q, k, v, segments, out, log_sum = kept
    scale = q.shape[3] ** -0.5
    own = (out.astype(jnp.float32) * g).sum(-1).swapaxes(1, 2)
    q, k, v, g = _heads_first(q * scale, k, v, g)
    # Scores lie keys first: so they are the left side of two of the three products that take them,
    # the right side of the third, and nowhere turned around.
    k_turned = k.swapaxes(2, 3)
    dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for queries, keys in _blocks(q.shape[2], causal):
        q_block, g_block, of_queries = q[:, :, queries], g[:, :, queries], (..., None, queries)
        scores = _product("BNSH,BNTH->BNST", k[:, :, keys], q_block)
        scores += _unseen(segments, queries, keys, causal).swapaxes(2, 3)
        weights = jnp.exp(scores - log_sum[of_queries])
        d_weights = _product("BNSH,BNTH->BNST", v[:, :, keys], g_block)
        d_scores = (weights * (d_weights - own[of_queries])).astype(q.dtype)
        dv = dv.at[:, :, keys].add(_product("BNST,BNTH->BNSH", weights.astype(g.dtype), g_block))
        dk = dk.at[:, :, keys].add(_product("BNST,BNTH->BNSH", d_scores, q_block))
        dq.append(_product("BNHS,BNST->BNHT", k_turned[..., keys], d_scores))
    of_q = (jnp.concatenate(dq, axis=3) * scale).transpose(0, 3, 1, 2)
    gradients = (x.astype(q.dtype) for x in (of_q, dk.swapaxes(1, 2), dv.swapaxes(1, 2)))
    return *jax.lax.optimization_barrier(tuple(gradients)), None


_attention.defvjp(_forward, _backward)


def _blocks(length: int, causal: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, and the keys that one may see."""
    size = -(-length // _BLOCKS) if causal else length
    for start in range(0, length, size):
        end = min(start + size, length)
        yield slice(start, end), slice(0, end)


def _unseen(
    segments: Int[Array, "B T"], queries: slice, keys: slice, causal: bool
) -> Float[Array, "B 1 q k"]:
    """What is added to scores: 0 where a query sees a key."""
    seen = segments[:, queries, None] == segments[:, None, keys]
    if causal:
        places = jnp.arange(segments.shape[1])
        seen &= (places[queries, None] >= places[None, keys])[None]
    return jnp.where(seen, 0.0, _UNSEEN)[:, None]


def _heads_first(*arrays: Float[Array, "B T N H"]) -> tuple[Float[Array, "B N T H"], ...]:
    """Turned around once: without the barrier XLA does it in the loop of each block that reads."""
    return tuple(jax.lax.optimization_barrier(tuple(x.swapaxes(1, 2) for x in arrays)))


def _product(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
