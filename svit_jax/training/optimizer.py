"""AdamW with linear warmup and cosine decay; which parameters train, and each group's rate."""

import dataclasses
import re
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from data_pipeline.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """`trainable` holds regular expressions over parameter paths ("projector/.*"); a path's rate is
    that of the first entry of `rates` ("projector/.*=2e-5") that matches it, else
    `learning_rate`. `clip_norm` 0 does not clip, as LLaVA-1.5."""

    learning_rate: float
    trainable: tuple[str, ...]
    rates: tuple[str, ...] = ()
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0


def trainable_paths(
    patterns: Iterable[str], paths: Iterable[str], key: str = "optim.trainable"
) -> frozenset[str]:
    """The paths that some pattern matches whole. Raises UserError for a pattern that matches none,
    or is no regular expression; `key` is the config key that it names."""
    paths = list(paths)
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matched = {path for path in paths if re.fullmatch(pattern, path)}
        except re.error as error:
            raise UserError(
                f"{key} has '{pattern}', which is no regular expression ({error}); write it as "
                "'projector/.*'."
            ) from None
        if not matched:
            raise UserError(
                f"{key} has '{pattern}', which matches no parameter; paths look like '{paths[0]}'."
            )
        chosen |= matched
    return frozenset(chosen)


def warmup_cosine(peak: float, steps: int, warmup_ratio: float) -> optax.Schedule:
    """Rate before update s (0-based): linear from 0 over ceil(ratio * steps) updates, then cosine
    to 0, as Hugging Face's `get_cosine_schedule_with_warmup`, which LLaVA trains with."""
    warmup = -int(-warmup_ratio * steps // 1)

    def rate(step: jax.Array) -> jax.Array:
        done = (step - warmup) / max(1, steps - warmup)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return peak * jnp.where(step < warmup, step / max(1, warmup), cosine)

    return rate


def _parse_rates(entries: Iterable[str]) -> dict[str, float]:
    rates = {}
    for entry in entries:
        pattern, _, rate = entry.rpartition("=")
        try:
            rates[pattern] = float(rate)
        except ValueError:
            raise UserError(f"optim.rates has '{entry}'; write it as PATTERN=RATE.") from None
    return rates


def make_optimizer(
    config: OptimConfig, steps: int, paths: Iterable[str]
) -> optax.GradientTransformation:
    """The optimizer of a flat dict of trainable parameters. Raises UserError for an entry of
    `rates` that matches none of them."""
    paths = list(paths)
    rates = _parse_rates(config.rates)
    matched = {pattern: trainable_paths([pattern], paths, "optim.rates") for pattern in rates}
    labels = {path: next((p for p in rates if path in matched[p]), "default") for path in paths}

    def adamw(peak: float) -> optax.GradientTransformation:
        return optax.adamw(
            warmup_cosine(peak, steps, config.warmup_ratio),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    groups = {"default": adamw(config.learning_rate)}
    groups |= {pattern: adamw(peak) for pattern, peak in rates.items()}
    used = {label: groups[label] for label in set(labels.values())}
    update = optax.partition(used, labels) if len(used) > 1 else next(iter(used.values()))
    if config.clip_norm:
        update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    return update
