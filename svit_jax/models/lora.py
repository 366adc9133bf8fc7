"""LoRA on the decoder: y = x W + (alpha / r) dropout(x) a b, with W frozen (arXiv 2106.09685).

Beside a kernel W [L, *in, *out] at `decoder/blocks/q` lie, stacked over the layers like it,

    decoder/blocks/q_lora/a    [L, *in, r]
    decoder/blocks/q_lora/b    [L, r, *out]

with the kernel's own axes: heads stay an axis of their own. The tower never has any.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from svit_jax.models.decoder import PROJECTIONS, DecoderBlock
from svit_jax.models.parameters import Logical, zeros
from svit_jax.sharding import shard


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """`targets` are kernels of the decoder's blocks; the defaults are LLaVA-1.5's."""

    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.05
    targets: tuple[str, ...] = tuple(PROJECTIONS)


# A kernel's axes while it is used: gathered over the batch's devices, split over `tensor` still.
_GATHERED = {
    "embed": "act_embed",
    "heads": "act_heads",
    "kv_heads": "act_heads",
    "head_dim": None,
    "mlp": "act_mlp",
}


class LowRank(nnx.Module):
    """What LoRA adds to one kernel's product; its parameters are those of all layers, stacked.

    With `ranks` they are of several adapters, side by side along the rank (`models.adapters`): so
    many of each."""

    def __init__(
        self,
        name: str,
        kernel: nnx.Param,
        config: LoraConfig,
        rngs: nnx.Rngs,
        ranks: tuple[int, ...] = (),
    ):
        x, w, y = PROJECTIONS[name].replace("->", ",").split(",")
        inputs = sum(axis in x for axis in w)
        self.down = f"{x},{w[:inputs]}R->BTR"
        self.up = f"BTR,R{w[inputs:]}->{y}"
        self.name, self.config, self.ranks = name, config, ranks
        shape, logical = kernel.shape, kernel.get_metadata()["logical_axes"]
        cut, rank = 1 + inputs, config.rank
        self.a = _uniform(rngs, (*shape[:cut], rank), (*logical[:cut], "lora_rank"))
        self.b = zeros((shape[0], rank, *shape[cut:]), ("layers", "lora_rank", *logical[cut:]))
        self.inputs = tuple(_GATHERED[axis] for axis in logical[1:cut])
        self.outputs = tuple(_GATHERED[axis] for axis in logical[cut:])

    def __call__(
        self,
        x: Float[Array, "B T ..."],
        dropout: Key[Array, ""] | None,
        adapter: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T ..."]:
        """`dropout` is the layer's key, from which each kernel takes its own; None drops nothing,
        as in inference. `adapter`: of several, whose ranks count for a row, from 1; 0: nobody's."""
        config = self.config
        if dropout is not None and config.dropout > 0:
            key = jax.random.fold_in(dropout, list(PROJECTIONS).index(self.name))
            kept = jax.random.bernoulli(key, 1 - config.dropout, x.shape)
            x = jnp.where(kept, x / (1 - config.dropout), 0).astype(x.dtype)
        # Said, not left to the partitioner: the small factors are gathered, activations stay put.
        a = shard(self.a[...].astype(x.dtype), *self.inputs, None)
        b = shard(self.b[...].astype(x.dtype), None, *self.outputs)
        low = shard(jnp.einsum(self.down, x, a), "batch", "length", None)
        if self.ranks:
            assert adapter is not None, "which adapter a row has must be said"
            owner = np.repeat(np.arange(1, 1 + len(self.ranks)), self.ranks)
            low = jnp.where(owner[None, None] == adapter[:, None, None], low, 0)
        return config.alpha / config.rank * jnp.einsum(self.up, low, b)


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], logical: Logical) -> nnx.Param:
    """U(-1/sqrt(fan in), 1/sqrt(fan in)), as PEFT begins: kaiming uniform with a slope of sqrt(5).
    The first axis is the layers', the last the rank."""
    bound = math.prod(shape[1:-1]) ** -0.5
    drawn = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
    return nnx.Param(drawn, logical_axes=logical)


def attach(block: DecoderBlock, config: LoraConfig, rngs: nnx.Rngs) -> None:
    """Gives the block a LowRank beside each target's kernel."""
    for name in config.targets:
        setattr(block, f"{name}_lora", LowRank(name, getattr(block, name), config, rngs))


def is_lora(path: str) -> bool:
    """Whether a parameter's path is of one that LoRA adds."""
    return path.startswith("decoder/blocks/") and "_lora/" in path


def merge(parameters: Mapping[str, Any], config: LoraConfig) -> dict[str, Any]:
    """The parameters of the model without LoRA that answers the same: W + (alpha / r) a b.

    Computed in float32, a layer at a time; a kernel keeps its dtype, so one stored in bfloat16 is
    rounded once.
    """
    merged = {path: array for path, array in parameters.items() if not is_lora(path)}
    for name in config.targets:
        path = f"decoder/blocks/{name}"
        a, b = parameters[f"{path}_lora/a"], parameters[f"{path}_lora/b"]
        merged[path] = _merged(merged[path], a, b, config.alpha / config.rank)
    return merged


@functools.partial(jax.jit, static_argnames="scale")
def _merged(kernel: Array, a: Array, b: Array, scale: float) -> Array:
    def layer(arrays: tuple[Array, Array, Array]) -> Array:
        w, a, b = (x.astype(jnp.float32) for x in arrays)
        return (w + scale * jnp.tensordot(a, b, axes=1)).astype(kernel.dtype)

    return jax.lax.map(layer, (kernel, a, b))
