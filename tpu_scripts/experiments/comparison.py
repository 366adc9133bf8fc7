"""Measured beside predicted: the error of each figure, and whether the plan's order holds."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from svit_jax.chips import find_chip
from svit_jax.planning.plan import Plan


@dataclasses.dataclass(frozen=True)
class Compared:
    """A row: its plan, and what was measured (the fields of `measure.Measured`), or why it failed;
    neither where it was not run yet."""

    plan: Plan
    measured: dict[str, Any] | None = None
    reason: str = ""

    @property
    def state(self) -> str:
        return "measured" if self.measured else "failed" if self.reason else "not run yet"

    @property
    def figures(self) -> dict[str, tuple[float, float | None]]:
        """Name -> (predicted, measured); None for what was not measured."""
        plan, found = self.plan, self.measured or {}
        predicted = {
            "seconds": plan.estimate.seconds,
            "tokens_per_second": plan.estimate.tokens_per_second,
            "mfu": plan.estimate.mfu,
            "peak_memory": float(plan.memory.total),
        }
        return {name: (value, found.get(name)) for name, value in predicted.items()}

    @property
    def errors(self) -> dict[str, float]:
        """Measured over predicted, less 1: 0.1 is 10% more than the plan says."""
        return {
            name: measured / predicted - 1
            for name, (predicted, measured) in self.figures.items()
            if measured is not None
        }

    @property
    def rehearsal(self) -> bool:
        """Whether it ran on other hardware than it was planned for, so that the prediction says
        nothing of it."""
        if self.measured is None:
            return False
        planned = find_chip(self.plan.device_kind)
        return planned is None or find_chip(self.measured["device_kind"]) is not planned


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Whether the plans' order is the measured one, by tokens a second. Of `pairs` of measured rows
    `agreeing` come in the plan's order. `regret`: how much slower than the fastest the one is that
    the plan puts first among them."""

    pairs: int
    agreeing: int
    tau: float
    best: int
    regret: float


def ranking(rows: Sequence[Compared]) -> Ranking | None:
    """None where fewer than two rows were measured. `tau` is Kendall's (tau-a): the share of pairs
    in order less the share of those in the other order; a tie is in neither. `best`: which of
    `rows` is the fastest."""
    speeds = [
        (row.plan.estimate.tokens_per_second, row.measured["tokens_per_second"], place)
        for place, row in enumerate(rows)
        if row.measured
    ]
    if len(speeds) < 2:
        return None
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in itertools.combinations(speeds, 2)]
    agreeing = sum(sign > 0 for sign in signs)
    opposed = sum(sign < 0 for sign in signs)
    fastest = max(speeds, key=lambda speed: speed[1])
    chosen = max(speeds, key=lambda speed: speed[0])
    return Ranking(
        pairs=len(signs),
        agreeing=agreeing,
        tau=(agreeing - opposed) / len(signs),
        best=fastest[2],
        regret=1 - chosen[1] / fastest[1],
    )
