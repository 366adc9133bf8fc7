"""Several LoRA adapters on one base, unmerged: each row of a batch is answered with its own.

The factors of all adapters lie side by side along the rank, R = r1 + r2 + ... of those that have
the kernel among their targets, with alpha / r folded into b:

    decoder/blocks/q_lora/a    [L, *in, R]
    decoder/blocks/q_lora/b    [L, R, *out]

    y = x W + ((x a) * m) b    with m 1 at the ranks of the row's adapter and 0 elsewhere

So each adapter takes the memory of its own rank and is read once a step, however many rows there
are; nothing is gathered by row. Projectors, which stage 2 trains in full, are stacked with the
base's first: `projector/fc1` [1 + A, C, D] and so on. Adapters are numbered from 1; 0 is the base.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from svit_jax.models.decoder import PROJECTIONS, DecoderBlock
from svit_jax.models.lora import LoraConfig, LowRank, is_lora


def is_adapted(path: str) -> bool:
    """Whether a parameter's path is of one that each adapter has for itself."""
    return is_lora(path) or path.startswith("projector/")


def attach_adapters(block: DecoderBlock, adapters: Sequence[LoraConfig], rngs: nnx.Rngs) -> None:
    """Gives the block a LowRank for all adapters beside each kernel that is any one's target."""
    for name in PROJECTIONS:
        ranks = tuple(each.rank if name in each.targets else 0 for each in adapters)
        if total := sum(ranks):
            together = LoraConfig(total, float(total), 0.0, (name,))
            low = LowRank(name, getattr(block, name), together, rngs, ranks)
            setattr(block, f"{name}_lora", low)


def with_adapters(
    parameters: Mapping[str, jax.Array],
    adapters: Sequence[tuple[LoraConfig, Mapping[str, jax.Array]]],
    shardings: Mapping[str, NamedSharding],
    dtype: str,
) -> dict[str, jax.Array]:
    """The base's parameters with those of the adapters (each one's `is_adapted`), as
    `abstract_model` has them with these adapters, in the dtype that is computed in; `shardings`
    says where each lies."""
    found = dict(parameters)
    for path, place in shardings.items():
        if is_lora(path):
            having = [(config, own[path]) for config, own in adapters if path in own]
            scales = tuple(config.alpha / config.rank for config, _ in having)
            join = functools.partial(_side_by_side, scales=scales, path=path, dtype=dtype)
            arrays = [array for _, array in having]
        elif is_adapted(path):
            join = functools.partial(_stacked, dtype=dtype)
            arrays = [parameters[path], *(own[path] for _, own in adapters)]
        else:
            continue
        found[path] = jax.jit(join, out_shardings=place)(arrays)
    return found


def _side_by_side(
    arrays: list[Float[Array, "..."]], scales: tuple[float, ...], path: str, dtype: str
) -> Float[Array, "..."]:
    if path.endswith("/a"):
        return jnp.concatenate([array.astype(dtype) for array in arrays], axis=-1)
    wide = [s * array.astype("float32") for s, array in zip(scales, arrays, strict=True)]
    return jnp.concatenate([array.astype(dtype) for array in wide], axis=1)


def _stacked(arrays: list[Float[Array, "..."]], dtype: str) -> Float[Array, "..."]:
    return jnp.stack([array.astype(dtype) for array in arrays])
