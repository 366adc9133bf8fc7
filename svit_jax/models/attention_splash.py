"""Attention on TPUs: Pallas' splash attention, which skips the blocks that no query sees."""

import jax
import jax.numpy as jnp
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
    # Here, since Pallas takes a second to import, and only TPUs run it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, head_dim = q.shape[1:]
    kind = splash.CausalMask if causal else splash.FullMask
    q_block, kv_block = _block(length // place.parts(place.tokens)), _block(length)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([kind((length, length))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=q_block,
            block_kv=kv_block,
            block_q_dkv=q_block,
            block_kv_dkv=kv_block,
            block_q_dq=q_block,
            block_kv_dq=kv_block,
        ),
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


def _block(length: int) -> int:
    """The largest block that divides a length."""
    sizes = range(min(length, LARGEST_BLOCK), 0, -BLOCK)
    return next(size for size in sizes if length % size == 0)
