"""Attention on NVIDIA GPUs: Pallas' flash attention, which takes segment ids.

(cuDNN's, behind `jax.nn.dot_product_attention`, takes none: packed rows would see each other.)
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from svit_jax.models.remat import ATTENTION
from svit_jax.sharding.rules import Placement

Queries = Float[Array, "B T N H"] | jax.ShapeDtypeStruct

PLATFORM = "gpu"
BLOCK = 128
"""Lengths are multiples of this, the kernel's block of queries and of keys."""


def obstacle(q: Queries, place: Placement) -> str | None:
    """Why the kernel can't take these queries, if so."""
    rows, _, heads, head_dim = q.shape
    if q.dtype == jnp.float32:
        return "activations are float32, whose blocks don't fit a GPU's shared memory"
    if not 16 <= head_dim <= 128:
        return f"its heads have {head_dim} numbers, and the kernel takes 16 to 128"
    if place.parts(place.tokens) > 1:
        return "the kernel needs a row's tokens on one device, and mesh.sequence is not 1"
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
    # Here, since jax 0.12 deprecates this module (for tokamax): no other backend depends on it.
    from jax.experimental.pallas.ops.gpu.attention import mha

    group = q.shape[2] // k.shape[2]
    scale = q.shape[3] ** -0.5

    def local(q: Array, k: Array, v: Array, segments: Array) -> Array:
        k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
        out = mha(q, k, v, segments, sm_scale=scale, causal=causal, interpret=interpret)
        return checkpoint_name(out, ATTENTION)

    if place.mesh is None:
        return local(q, k, v, segments)
    rows = P(place.rows, None, place.heads, None)
    return jax.shard_map(
        local,
        mesh=place.mesh,
        in_specs=(rows, rows, rows, P(place.rows, None)),
        out_specs=rows,
        check_vma=False,
    )(q, k, v, segments)
