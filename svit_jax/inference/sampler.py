"""Which token comes next."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from data_pipeline.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_p keeps the fewest tokens with that much probability."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature={self.temperature}, top_p={self.top_p}: the temperature must be at "
                "least 0 and top_p in (0, 1]."
            )


GREEDY = Sampling()


def pick(logits: Float[Array, "B V"], sampling: Sampling, key: Key[Array, ""]) -> Int[Array, "B"]:
    """One token a row from float32 logits."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    scaled = logits / sampling.temperature
    if sampling.top_p < 1:
        ordered = jnp.sort(scaled, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
        # The likeliest token always stays: nothing comes before it.
        floor = jnp.min(jnp.where(before < sampling.top_p, ordered, jnp.inf), axis=-1)
        scaled = jnp.where(scaled >= floor[:, None], scaled, -jnp.inf)
    return jax.random.categorical(key, scaled, axis=-1)
