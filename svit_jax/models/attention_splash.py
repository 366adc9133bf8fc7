"""Attention on TPUs: Pallas' splash attention, which skips the blocks that no query sees."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from svit_jax.models.remat import ATTENTION
from svit_jax.sharding.rules import Placement

Queries = Float[Array, "B T N H"] | jax.ShapeDtypeStruct

PLATFORM = "tpu"
BLOCK = 128
"""Lengths are multiples of this: the lanes of a TPU's vector unit."""

LARGEST_BLOCK = 640
"""Larger blocks move less memory and must fit on the chip; 640 holds a picture's 577 tokens."""


def obstacle(q: Queries, place: Placement) -> str | None:
    """Why the kernel can't take these queries, if so."""
    rows, _, heads, head_dim = q.shape
    if head_dim % 64:
        return f"its heads have {head_dim} numbers, and splash attention takes multiples of 64"
    return place.indivisible(rows, heads)


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
    length, heads, head_dim = q.shape[1:]
    kind = splash.CausalMask if causal else splash.FullMask
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([kind((length, length))] * heads),
        block_sizes=_block_sizes(length // place.parts(place.tokens), length),
        head_shards=place.parts(place.heads),
        q_seq_shards=place.parts(place.tokens),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )

    def local(kernel, q, k, v, of_queries, of_keys):  # type: ignore[no-untyped-def]
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        ids = splash.SegmentIds(of_queries, of_keys)
        out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=ids))(q, k, v, ids)
        return jnp.swapaxes(out, 1, 2)

    arguments = (kernel, q * head_dim**-0.5, k, v, segments, segments)
    if place.mesh is None:
        return local(*arguments)
    # The mask's blocks are cut up as the queries are: each device has those of its own.
    blocks = NamedSharding(place.mesh, P(place.heads, place.tokens))
    queries, keys = (
        P(place.rows, place.tokens, place.heads, None),
        P(place.rows, None, place.heads, None),
    )
    return jax.shard_map(
        local,
        mesh=place.mesh,
        in_specs=(
            kernel.manual_sharding_spec(blocks),
            queries,
            keys,
            keys,
            P(place.rows, place.tokens),
            P(place.rows, None),
        ),
        out_specs=queries,
        check_vma=False,
    )(*arguments)


def _block_sizes(queries: int, keys: int) -> splash.BlockSizes:
    def block(length: int) -> int:
        sizes = range(min(length, LARGEST_BLOCK), 0, -BLOCK)
        return next(size for size in sizes if length % size == 0)

    q, kv = block(queries), block(keys)
    return splash.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )
