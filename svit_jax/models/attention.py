"""Attention behind one function: XLA's everywhere, blocks on a CPU, and fused kernels on TPUs and
NVIDIA GPUs.

What a query may see is said by what it is, not by a [T, S] array, so that a kernel can skip what
is not seen. Kernels run under `shard_map`, each device on its own rows and heads; where tokens are
cut up too (`sequence`), a device has its own queries and is given all keys.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from svit_jax.models import attention_cpu, attention_gpu, attention_splash, decode_cpu
from svit_jax.models.remat import ATTENTION
from svit_jax.sharding.rules import Logical, Placement, placement

Backend = Literal["auto", "xla", "splash", "gpu", "cpu"]
"""auto: the platform's kernel where it fits, else xla. splash: Pallas on TPUs. gpu: Pallas on
NVIDIA GPUs. On a CPU these two are interpreted, which is for tests. cpu: in blocks."""

DECODER_AXES: Logical = ("batch", "length", "act_heads")
TOWER_AXES: Logical = ("pictures", "patches", None)
"""Where rows, tokens and heads of an attention lie."""


class Packed(NamedTuple):
    """Sees its own segment, and not ahead: tokens of a packed row."""

    segment_ids: Int[Array, "B T"]


Seen = Packed | None
"""A packed row's segments; None: everything."""

_KERNELS = {"splash": attention_splash, "gpu": attention_gpu, "cpu": attention_cpu}


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    seen: Seen,
    backend: Backend = "xla",
    axes: Logical = DECODER_AXES,
) -> Float[Array, "B T N H"]:
    """Scaled dot-product attention with grouped keys (N a multiple of K); softmax in float32.

    Each backend names its result for `models.remat`, once: a kernel that keeps it for its own
    backward pass would be kept twice if the caller named it too.

    Raises UserError where the backend that is asked for by name can't run here.
    """
    place = placement(axes)
    kernel = kernel_for(backend, q, place)
    if kernel is None:
        mask = None if seen is None else packed_mask(seen.segment_ids)[:, None]
        return checkpoint_name(jax.nn.dot_product_attention(q, k, v, mask=mask), ATTENTION)
    rows, length = q.shape[:2]
    causal = seen is not None
    segments = jnp.ones((rows, length), jnp.int32) if seen is None else seen.segment_ids
    # Padding is segment 0: tokens of a tower don't see it, and those of a packed row not ahead.
    padding = -length % (kernel.BLOCK * place.parts(place.tokens))
    q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q, k, v))
    segments = jnp.pad(segments, ((0, 0), (0, padding)))
    interpret = place.platform == "cpu"
    return kernel.fused(q, k, v, segments, causal, place, interpret)[:, :length]


def cached_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    positions: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """The same of tokens at `positions` over a cache, whose slot s holds position s: each sees the
    slots up to its own. XLA's, but for one token a row on a CPU: a step of decoding reads the cache
    once, and that is all."""
    rows, length, heads, size = q.shape
    if length == 1 and decode_cpu.suits(q.dtype, placement(DECODER_AXES)):
        q = q.reshape(rows, k.shape[1], -1, size)
        return decode_cpu.attend_cached(q, k, v, positions[:, 0]).reshape(rows, 1, heads, size)
    q = q.reshape(rows, length, k.shape[1], -1, size)
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", q, k, preferred_element_type=jnp.float32)
    seen = cache_mask(positions, k.shape[2])[:, None, None]
    scores = jnp.where(seen, scores * size**-0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BKSH->BTKGH", weights, v).reshape(rows, length, heads, size)


def kernel_for(
    backend: Backend, q: Float[Array, "B T N H"] | jax.ShapeDtypeStruct, place: Placement
) -> ModuleType | None:
    """The module of the kernel to run for these queries, or None for XLA."""
    if backend == "xla":
        return None
    if backend == "auto":
        fitting = (
            kernel
            for kernel in _KERNELS.values()
            if place.platform == kernel.PLATFORM and not kernel.obstacle(q, place)
        )
        return next(fitting, None)
    kernel = _KERNELS[backend]
    interpreted = place.platform == "cpu" and kernel is not attention_cpu
    if not interpreted:
        place.require(
            kernel.PLATFORM, kernel.obstacle(q, place), f"model.compute.attention={backend}"
        )
    return kernel


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
