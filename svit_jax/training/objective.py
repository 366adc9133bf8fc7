"""Cross entropy of the targets alone: logits of a whole batch never exist at once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from data_pipeline.common.errors import UserError
from svit_jax.batch import Batch
from svit_jax.models.svit import Compute, Svit


class Sums(NamedTuple):
    """Sums over target tokens; accumulate them, divide once (a mean of means would be biased)."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    correct: Float[Array, ""]


def token_sums(
    model: Svit,
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B T"],
    loss_weights: Float[Array, "B T"],
    chunk: int,
) -> Sums:
    """Weighted loss and hits over the targets, `chunk` target positions of each row at a time.

    Rows are sorted so that positions with a target come first; a chunk without any is skipped, so
    the cost follows the number of targets, and [B, chunk, V] is the largest array of logits.
    """
    length = hidden.shape[1]
    chunk = min(chunk, length)
    # Rolled, not sliced, so that T keeps dividing the mesh; the weight that wraps around is 0
    # because a segment's first token is never a target.
    targets = jnp.roll(tokens, -1, axis=1)
    weights = jnp.roll(loss_weights, -1, axis=1)
    order = jnp.argsort(weights == 0, axis=1, stable=True)
    padding = -length % chunk

    def chunks(x: Array) -> Array:
        x = jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, [(0, 0), (0, padding), *[(0, 0)] * (x.ndim - 2)])
        x = x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    def score(piece: tuple[Array, Array, Array]) -> Sums:
        hidden, targets, weights = piece
        logits = model.decoder.unembed(hidden)
        picked = jnp.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
        loss = jax.nn.logsumexp(logits, axis=-1) - picked
        hit = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
        counted = (weights != 0).astype(jnp.float32)
        return Sums((loss * weights).sum(), weights.sum(), (hit * counted).sum())

    zero = Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))

    def body(total: Sums, piece: tuple[Array, Array, Array]) -> tuple[Sums, None]:
        # Logits are recomputed in the backward pass: keeping every chunk's would undo the saving.
        # Around the choice: within, a branch keeps a copy of the unembedding for each chunk.
        @jax.checkpoint
        def part(piece: tuple[Array, Array, Array]) -> Sums:
            return jax.lax.cond(jnp.any(piece[2] != 0), score, lambda piece: zero, piece)

        return jax.tree.map(jnp.add, total, part(piece)), None

    total, _ = jax.lax.scan(body, zero, (chunks(hidden), chunks(targets), chunks(weights)))
    return total


def check_groups(rows: int, groups: int) -> None:
    """Raises UserError where a step's rows are no such number of groups."""
    if groups < 0 or (groups and rows % groups):
        raise UserError(
            f"train.loss_groups={groups} does not divide data.batch_size={rows}; the rows of a "
            "step are cut into that many groups of one size, or into none with 0."
        )


def normalised_weights(loss_weights: Float[Array, "B T"], groups: int) -> Float[Array, "B T"]:
    """Weights with which the plain sum of a batch's losses is the loss to train on.

    `groups` 0: the mean over all targets. n: rows are cut into n groups, in their order, and the
    groups' means are averaged, as n devices do that each divide by their own number of targets.
    A group without targets has no mean and is left out.
    """
    rows = loss_weights.shape[0]
    totals = loss_weights.sum(axis=1).reshape(max(groups, 1), -1).sum(axis=1)
    with_targets = jnp.maximum((totals > 0).sum(), 1)
    scale = 1 / (jnp.where(totals > 0, totals, 1) * with_targets)
    return loss_weights * jnp.repeat(scale, rows // max(groups, 1))[:, None]


def batch_sums(
    model: Svit,
    batch: Batch,
    compute: Compute,
    chunk: int,
    dropout: Key[Array, ""] | None = None,
) -> Sums:
    """The model's loss on a batch, as sums over its target tokens; `dropout`: LoRA's key."""
    on_devices: Any = batch  # its annotations are those of the host's arrays
    hidden = model.hidden(
        on_devices.tokens,
        on_devices.segment_ids,
        on_devices.positions,
        on_devices.images,
        on_devices.vision_index,
        compute,
        dropout,
    )
    return token_sums(model, hidden, on_devices.tokens, on_devices.loss_weights, chunk)
