"""Which token comes next: each row by its own settings, which are data, so that none compiles anew.

The settings mean what transformers' logits processors of the same names mean, in its order:
repetition penalty, temperature, top-k, top-p.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from data_pipeline.common.errors import UserError

_SEEDS = 2**32

_COLDEST = 0.01
"""Below it a temperature is 0: logits divided by less overflow."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """A temperature of 0, or below 0.01, is greedy; top_p keeps the fewest tokens with that much
    probability, and one at least; top_k the k likeliest (0: all). repetition_penalty divides the
    logit of every token that prompt or answer already has, or multiplies it where it is negative. A
    seed gives a prompt the same tokens whatever else is in the batch."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature={self.temperature}, top_p={self.top_p}: the temperature must be at "
                "least 0 and top_p in (0, 1]."
            )
        if self.top_k < 0 or not 0 < self.repetition_penalty < np.inf:
            raise UserError(
                f"top_k={self.top_k}, repetition_penalty={self.repetition_penalty}: top_k must be "
                "at least 0 (which keeps all tokens) and the penalty above 0 (1 has no effect)."
            )
        if not 0 <= self.seed < _SEEDS:
            raise UserError(f"seed={self.seed}: a seed must be in [0, {_SEEDS}).")


GREEDY = Sampling()


class Settings(NamedTuple):
    """The `Sampling` of each row."""

    temperature: Float[Array, "B"]
    top_p: Float[Array, "B"]
    top_k: Int[Array, "B"]
    repetition_penalty: Float[Array, "B"]
    seed: UInt32[Array, "B"]

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> "Settings":
        """Of host arrays, for the caller to lay on devices."""
        columns: list[Any] = [
            np.array([_warm(row.temperature) for row in rows], np.float32),
            np.array([row.top_p for row in rows], np.float32),
            np.array([row.top_k for row in rows], np.int32),
            np.array([row.repetition_penalty for row in rows], np.float32),
            np.array([row.seed for row in rows], np.uint32),
        ]
        return cls(*columns)


def _warm(temperature: float) -> float:
    return temperature if temperature >= _COLDEST else 0.0


def pick(
    logits: Float[Array, "B V"],
    settings: Settings,
    seen: Bool[Array, "B V"],
    number: Int[Array, "B"],
) -> Int[Array, "B"]:
    """One token a row from float32 logits; `number` new ones stand before it in each row.

    What no row of the batch asks for isn't computed: greedy rows cost an argmax.
    """
    logits = jax.lax.cond(
        jnp.any(settings.repetition_penalty != 1),
        lambda: penalised(logits, settings, seen),
        lambda: logits,
    )
    likeliest = jnp.argmax(logits, axis=-1)

    def drawn() -> Int[Array, "B"]:
        tokens = _draw(candidates(logits, settings), settings, number)
        return jnp.where(settings.temperature > 0, tokens, likeliest)

    return jax.lax.cond(jnp.any(settings.temperature > 0), drawn, lambda: likeliest)


def penalised(
    logits: Float[Array, "B V"], settings: Settings, seen: Bool[Array, "B V"]
) -> Float[Array, "B V"]:
    """Logits with those of the tokens that were seen made less likely (arXiv 1909.05858)."""
    penalty = settings.repetition_penalty[:, None]
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def candidates(logits: Float[Array, "B V"], settings: Settings) -> Float[Array, "B V"]:
    """The logits to draw from, divided by the temperature (by 1 where it is 0): -inf for tokens
    that top-k or top-p leave out. Tokens as likely as the last one that is kept stay, too."""
    temperature = jnp.where(settings.temperature > 0, settings.temperature, 1)
    scaled = logits / temperature[:, None]
    ordered = jnp.sort(scaled, axis=-1, descending=True)
    size = ordered.shape[-1]
    most = jnp.where(settings.top_k > 0, jnp.minimum(settings.top_k, size), size)
    kth = jnp.take_along_axis(ordered, (most - 1)[:, None], axis=-1)
    shares = jax.nn.softmax(jnp.where(ordered >= kth, ordered, -jnp.inf))
    before = jnp.cumsum(shares, axis=-1) - shares
    top_p = settings.top_p[:, None]
    # At 1 everything stays, though sums of shares may round to more than 1.
    within = (before < top_p) | (top_p >= 1)
    # The likeliest stays, even where float32 has no number as small as top_p.
    least = jnp.min(jnp.where(within, ordered, ordered[:, :1]), axis=-1, keepdims=True)
    return jnp.where(scaled >= jnp.maximum(kth, least), scaled, -jnp.inf)


def _draw(
    logits: Float[Array, "B V"], settings: Settings, number: Int[Array, "B"]
) -> Int[Array, "B"]:
    """A draw whose randomness is the row's own: its seed, and how many tokens it has drawn."""

    def one(row: Float[Array, "V"], seed: UInt32[Array, ""], number: Int[Array, ""]) -> Array:
        return jax.random.categorical(jax.random.fold_in(jax.random.key(seed), number), row)

    return jax.vmap(one)(logits, settings.seed, number)


def log_probability(
    logits: Float[Array, "*rows V"], tokens: Int[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """Of each token under the model itself: before penalty, temperature, top-k and top-p."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
