"""Cross entropy of the targets alone: logits of a whole batch never exist at once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from data_pipeline.common.errors import UserError
from svit_jax.batch import Batch
from svit_jax.models.decoder import unembed
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
    the cost follows the number of targets, and [B, chunk, V] is the largest array of logits. The
    loss has a gradient in hidden states and unembedding; weights are constants.
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

    unembedding = model.decoder.unembedding[...]
    return _chunked_sums(unembedding, chunks(hidden), chunks(targets), chunks(weights))


def _zero() -> Sums:
    return Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))


def _score(unembedding: Array, hidden: Array, targets: Array, weights: Array) -> tuple[Array, Sums]:
    """The loss of one chunk, and its sums."""
    logits = unembed(unembedding, hidden)
    picked = jnp.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
    loss = ((jax.nn.logsumexp(logits, axis=-1) - picked) * weights).sum()
    # Not argmax: of the largest logit the loss has need anyway.
    hit = (picked == logits.max(axis=-1)) & (weights != 0)
    return loss, Sums(loss, weights.sum(), hit.astype(jnp.float32).sum())


@jax.custom_vjp
def _chunked_sums(unembedding: Array, *pieces: Array) -> Sums:
    """The sums over chunks of (hidden states, targets, weights), each stacked [C, B, chunk, ...].

    Its gradient is made with the loss, chunk by chunk, while the chunk's logits are there: they are
    computed once, and none are kept for the backward pass.
    """

    def add(total: Sums, piece: tuple[Array, ...]) -> tuple[Sums, None]:
        def scored(total: Sums) -> Sums:
            return jax.tree.map(jnp.add, total, _score(unembedding, *piece)[1])

        return jax.lax.cond(jnp.any(piece[2] != 0), scored, lambda total: total, total), None

    return jax.lax.scan(add, _zero(), pieces)[0]


def _sums_and_gradients(unembedding: Any, *pieces: Any) -> tuple[Sums, Any]:
    """The sums, and the loss's gradient in the unembedding and in the hidden states: each in a
    tuple, which is empty where nothing before it trains."""
    trains, flows = unembedding.perturbed, pieces[0].perturbed
    kernel: Array = unembedding.value
    scored = jax.grad(_score, argnums=(0,) * trains + (1,) * flows, has_aux=True)

    def add(total: Any, piece: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        def graded(total: Any) -> tuple[Any, tuple[Array, ...]]:
            gradients, sums = scored(kernel, *piece)
            return jax.tree.map(jnp.add, total, (sums, gradients[:trains])), gradients[trains:]

        def skipped(total: Any) -> tuple[Any, tuple[Array, ...]]:
            return total, (jnp.zeros_like(piece[0]),) * flows

        return jax.lax.cond(jnp.any(piece[2] != 0), graded, skipped, total)

    start = (_zero(), (jnp.zeros_like(kernel),) * trains)
    (sums, of_kernel), of_hidden = jax.lax.scan(add, start, tuple(x.value for x in pieces))
    return sums, (of_kernel, of_hidden)


def _scaled_gradients(gradients: Any, of_sums: Sums) -> tuple[Array | None, ...]:
    of_kernel, of_hidden = jax.tree.map(lambda x: (x * of_sums.loss).astype(x.dtype), gradients)
    return (*(of_kernel or (None,)), *(of_hidden or (None,)), None, None)


_chunked_sums.defvjp(_sums_and_gradients, _scaled_gradients, symbolic_zeros=True)


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
