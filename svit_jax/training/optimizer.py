"""AdamW, or Muon for matrices, with linear warmup and a decay by cosine or at the end; which
parameters train, and at which rate each."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from data_pipeline.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """`trainable` holds regular expressions over parameter paths ("projector/.*"); a path's rate is
    that of the first entry of `rates` ("projector/.*=2e-5") that matches it, else
    `learning_rate`. `muon` has patterns of those that Muon trains, all others AdamW does. Rates
    decay by a cosine, or, with `decay_ratio`, linearly in that last share of the steps. `clip_norm`
    0 does not clip, as LLaVA-1.5."""

    learning_rate: float
    trainable: tuple[str, ...]
    rates: tuple[str, ...] = ()
    warmup_ratio: float = 0.03
    decay_ratio: float = 0.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0
    muon: tuple[str, ...] = ()


MATRIX_AXES = {
    **dict.fromkeys(("q", "k", "v"), (1, 2)),
    **dict.fromkeys(("o", "out"), (2, 1)),
    **dict.fromkeys(("gate", "up", "down", "fc1", "fc2"), (1, 1)),
}
"""How many of a kernel's axes are inputs and how many outputs, in that order, by its last name."""

MUON_RMS = 0.2
"""The root mean square of Muon's update at a rate of 1: about that of AdamW's, so that one rate
suits both (Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982)."""

_MUON, _BY_MUON = "optim.muon", " by Muon"


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


def warmup_stable_decay(
    peak: float, steps: int, warmup_ratio: float, decay_ratio: float
) -> optax.Schedule:
    """Rate before update s (0-based): linear from 0 over ceil(warmup_ratio * steps) updates, then
    `peak`, then linear to 0 over the last ceil(decay_ratio * steps) (Hu et al., MiniCPM,
    arXiv 2404.06395).

    Raises UserError for shares that leave no room for each other.
    """
    if min(warmup_ratio, decay_ratio) < 0 or warmup_ratio + decay_ratio > 1 + 1e-6:
        raise UserError(
            f"optim.warmup_ratio is {warmup_ratio:g} and optim.decay_ratio {decay_ratio:g}: give "
            "shares of a run, which together are at most 1."
        )
    warmup, decay = (-int(-ratio * steps // 1) for ratio in (warmup_ratio, decay_ratio))

    def rate(step: jax.Array) -> jax.Array:
        rising, falling = step / max(1, warmup), (steps - step) / max(1, decay)
        return peak * jnp.clip(jnp.minimum(rising if warmup else 1.0, falling), 0, 1)

    return rate


def _rate(peak: float, steps: int, config: OptimConfig) -> optax.Schedule:
    if config.decay_ratio:
        return warmup_stable_decay(peak, steps, config.warmup_ratio, config.decay_ratio)
    return warmup_cosine(peak, steps, config.warmup_ratio)


def _parse_rates(entries: Iterable[str]) -> dict[str, float]:
    rates = {}
    for entry in entries:
        pattern, _, rate = entry.rpartition("=")
        try:
            rates[pattern] = float(rate)
        except ValueError:
            raise UserError(f"optim.rates has '{entry}'; write it as PATTERN=RATE.") from None
    return rates


def matrix_axes(path: str) -> optax.contrib.MuonDimensionNumbers | None:
    """Which axes of a parameter are the two of a matrix; None where it is no matrix. Kernels of
    stacked layers are one each."""
    folder, _, name = path.rpartition("/")
    if name not in MATRIX_AXES:
        return None
    first = int(folder.endswith("blocks"))
    inputs, outputs = MATRIX_AXES[name]
    last = first + inputs
    axes = tuple(range(first, last)), tuple(range(last, last + outputs))
    return optax.contrib.MuonDimensionNumbers(*axes)


def muon_paths(patterns: Iterable[str], paths: Iterable[str]) -> dict[str, Any]:
    """Path -> axes of the matrices that Muon trains. Raises UserError for a pattern that matches
    anything else, or nothing."""
    found = {path: matrix_axes(path) for path in sorted(trainable_paths(patterns, paths, _MUON))}
    others = [path for path, axes in found.items() if axes is None]
    if others:
        raise UserError(
            f"{_MUON} matches '{others[0]}', which is no matrix between activations; give it "
            "patterns such as 'decoder/blocks/(q|k|v|o|gate|up|down)' and leave the rest to AdamW."
        )
    return found


def make_optimizer(
    config: OptimConfig, steps: int, paths: Iterable[str]
) -> optax.GradientTransformation:
    """The optimizer of a flat dict of trainable parameters. Raises UserError for an entry of
    `rates` that matches none of them, of `muon` that matches no matrix, or ratios that don't add
    up."""
    paths = list(paths)
    rates = _parse_rates(config.rates)
    matched = {pattern: trainable_paths([pattern], paths, "optim.rates") for pattern in rates}
    matrices = muon_paths(config.muon, paths) if config.muon else {}
    groups = {path: next((p for p in rates if path in matched[p]), "default") for path in paths}
    labels = {path: group + _BY_MUON * (path in matrices) for path, group in groups.items()}

    def updated(label: str) -> optax.GradientTransformation:
        peak = rates.get(label.removesuffix(_BY_MUON), config.learning_rate)
        rate = _rate(peak, steps, config)
        if label.endswith(_BY_MUON):
            return optax.contrib.muon(
                rate,
                weight_decay=config.weight_decay,
                muon_weight_dimension_numbers={
                    path: matrices[path] if labels[path] == label else optax.MaskedNode()
                    for path in paths
                },
                consistent_rms=MUON_RMS,
            )
        return optax.adamw(
            rate,
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    used = {label: updated(label) for label in set(labels.values())}
    update = optax.partition(used, labels) if len(used) > 1 else next(iter(used.values()))
    if config.clip_norm:
        update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    return update
