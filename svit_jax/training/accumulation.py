"""A step's gradient by way of microbatches: equal to the whole batch's, in less memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from data_pipeline.common.errors import UserError
from data_pipeline.loading.batch import Batch
from svit_jax.batch import LOGICAL, with_fields
from svit_jax.sharding import shard

Parameters = dict[str, jax.Array]
Gradient = Callable[[Parameters, Batch, Any], tuple[Any, Parameters]]
"""(parameters, batch, dropout's key) -> (sums over the batch, their gradient)"""


def check_split(rows: int, microbatches: int, batch_devices: int) -> None:
    """Raises UserError where a step's rows are no such number of microbatches."""
    if microbatches < 1 or rows % microbatches:
        raise UserError(
            f"train.accumulate={microbatches} does not divide data.batch_size={rows}; the rows of "
            "a step are cut into that many microbatches of one size."
        )
    if microbatches > 1 and rows // microbatches % batch_devices:
        raise UserError(
            f"train.accumulate={microbatches} makes microbatches of {rows // microbatches} rows, "
            f"which do not divide over the mesh's {batch_devices} devices that share rows; "
            "accumulate less, or raise data.batch_size."
        )


def microbatches(batch: Batch, count: int) -> Batch:
    """[B, ...] -> [count, B / count, ...]. Microbatch i holds rows i, i + count, ..., so each
    device cuts up the rows that it holds and none are moved."""

    def cut(name: str) -> jax.Array:
        x = getattr(batch, name)
        x = x.reshape(x.shape[0] // count, count, *x.shape[1:])
        return shard(jnp.moveaxis(x, 1, 0), None, *LOGICAL[name])

    return with_fields(batch, **{name: cut(name) for name in LOGICAL})


def accumulated(
    gradient: Gradient,
    parameters: Parameters,
    batch: Batch,
    dropout: jax.Array | None,
    count: int,
    shardings: dict[str, Any],
) -> tuple[Any, Parameters]:
    """The sums and their gradient over `count` microbatches, one after another; the gradient lies
    as the parameters do. Each microbatch has its own key of dropout."""
    if count == 1:
        return gradient(parameters, batch, dropout)
    keys = None if dropout is None else jax.random.split(dropout, count)
    pieces = microbatches(batch, count)
    first = jax.tree.map(lambda x: x[0], (pieces, keys))
    zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, parameters, *first))

    def add(total: tuple[Any, Parameters], piece: tuple[Batch, Any]) -> tuple[Any, None]:
        sums, gradients = jax.tree.map(jnp.add, total, gradient(parameters, *piece))
        return (sums, jax.lax.with_sharding_constraint(gradients, shardings)), None

    total, _ = jax.lax.scan(add, zero, (pieces, keys))
    return total
