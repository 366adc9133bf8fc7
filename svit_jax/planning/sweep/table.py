"""A sweep in the terminal, as CSV and as JSON: the same rows, best first."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from svit_jax.planning.sweep.grid import Outcome, mesh_text, rows_text
from svit_jax.planning.sweep.runner import ranked

GIB = 2**30
MARK = "*"
"""Stands beside what changes the paper's recipe."""

_MOST_REASONS = 8


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Outcomes, best first; `command` repeats it. `known` plans came from the cache."""

    outcomes: tuple[Outcome, ...]
    command: str
    compiles: int
    known: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], command: str, compiles: int, known: int) -> "Sweep":
        return cls(tuple(ranked(outcomes)), command, compiles, known)

    @property
    def planned(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.plan]

    @property
    def best(self) -> Outcome | None:
        """The fastest that fits; None where nothing does."""
        return self.outcomes[0] if self.outcomes and self.outcomes[0].fits else None

    @property
    def versions(self) -> Mapping[str, str]:
        return next((each.plan.versions for each in self.planned if each.plan), {})

    def reasons(self, skipped: bool) -> list[tuple[str, int]]:
        """Why there is no plan and how often, by the trainer's refusals or the compiler's."""
        without = (each for each in self.outcomes if not each.plan and each.skipped == skipped)
        return Counter(each.reason for each in without).most_common()

    def departures(self) -> list[str]:
        """Every difference from the paper's recipe that a row of it has."""
        return list(
            dict.fromkeys(
                text for each in self.planned if each.plan for text in each.plan.departures
            )
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "versions": dict(self.versions),
            "compiles": self.compiles,
            "from_cache": self.known,
            "candidates": [
                {
                    **fields(outcome),
                    "settings": list(outcome.candidate.settings),
                    "plan": outcome.plan.to_json() if outcome.plan else None,
                }
                for outcome in self.outcomes
            ],
        }


def status(outcome: Outcome) -> str:
    if outcome.plan is None:
        return "skipped" if outcome.skipped else "failed"
    return "fits" if outcome.fits else "too large"


def fields(outcome: Outcome) -> dict[str, Any]:
    """What a row of the table says, as plain values; those of a plan are missing without one."""
    candidate, plan = outcome.candidate, outcome.plan
    found = {
        "status": status(outcome),
        "config": candidate.config,
        "topology": candidate.topology,
        **candidate.sizes,
        "rows_per_device": candidate.rows,
        "accumulate": candidate.accumulate,
        "batch_size": candidate.batch_size,
        "remat_decoder": candidate.remat,
    }
    if plan:
        found |= {
            "mode": plan.choices["mode"],
            "devices": plan.devices,
            "samples": plan.work["samples"],
            "tokens": plan.work["tokens"],
            "memory_total": plan.memory.total,
            "memory_capacity": plan.memory.capacity,
            **{f"memory_{name}": size for name, size in plan.memory.parts.items()},
            "seconds": plan.estimate.seconds,
            **{f"seconds_{name}": each for name, each in plan.estimate.limits.items()},
            "bound": plan.estimate.bound,
            "tokens_per_second": plan.estimate.tokens_per_second,
            "mfu": plan.estimate.mfu,
            "departures": "; ".join(plan.departures),
        }
    return found | {"reason": outcome.reason}


def csv_text(sweep: Sweep) -> str:
    """A line for each candidate; bytes and seconds are not rounded."""
    rows = [fields(outcome) for outcome in sweep.outcomes]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "reason"))
    target = io.StringIO()
    writer = csv.DictWriter(target, ["rank", *names, "reason"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"rank": rank, **row} for rank, row in enumerate(rows, start=1))
    return target.getvalue()


HEADER = (
    "",
    "topology",
    "mode",
    "mesh",
    "rows a device (x times)",
    "remat",
    "samples a step",
    "memory, GiB",
    "s a step",
    "tokens/s a device",
    "MFU",
    "bound by",
)


def cells(rank: int, outcome: Outcome) -> tuple[str, ...]:
    """A plan's row under HEADER."""
    plan = outcome.plan
    assert plan
    rows = f"{outcome.candidate.rows}"
    if outcome.candidate.accumulate > 1:
        rows += f" x {outcome.candidate.accumulate}"
    memory = f"{plan.memory.total / GIB:.2f} of {plan.memory.capacity / GIB:.2f}"
    if not outcome.fits:
        memory += f", {(plan.memory.total - plan.memory.capacity) / GIB:.2f} too much"
    return (
        str(rank),
        plan.topology,
        str(plan.choices["mode"]),
        mesh_text(plan.mesh),
        rows,
        str(plan.choices["remat_decoder"]),
        f"{plan.work['samples']:.0f}{MARK if plan.departures else ''}",
        memory,
        f"{plan.estimate.seconds:.3f}",
        f"{plan.estimate.tokens_per_second:,.0f}",
        f"{plan.estimate.mfu:.1%}",
        plan.estimate.bound,
    )


def table_text(sweep: Sweep, top: int) -> str:
    """The best `top` plans, what the marks mean, and why others have none."""
    planned = sweep.planned
    lines = [HEADER, *(cells(rank, each) for rank, each in enumerate(planned[:top], start=1))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines] if planned else []
    if len(planned) > top:
        text.append(f"{len(planned) - top} more plans; --top, --csv and --json show them")
    text += [f"{MARK} not the paper's recipe: {each}" for each in sweep.departures()]
    text += [summary(sweep)]
    text += _reasons("failed", sweep.reasons(skipped=False))
    text += _reasons("skipped", sweep.reasons(skipped=True))
    return "\n".join(text)


def summary(sweep: Sweep) -> str:
    """How many of what, and the best, in a sentence or two."""
    counts = Counter(map(status, sweep.outcomes))
    said = ", ".join(
        f"{counts[kind]} {text}"
        for kind, text in (
            ("fits", "fit"),
            ("too large", "too large"),
            ("failed", "refused by the compiler"),
            ("skipped", "skipped (the trainer would refuse)"),
        )
        if counts[kind]
    )
    number = len(sweep.outcomes)
    text = (
        f"{number} candidate{'' if number == 1 else 's'}: {said or 'none'}. "
        f"{sweep.compiles} compiled now, {sweep.known} known from before."
    )
    if sweep.best is None or sweep.best.plan is None:
        return f"{text} None fits: try more devices, or fewer rows a device."
    best = sweep.best.plan
    return (
        f"{text} Fastest that fits: {best.topology} with {mesh_text(best.mesh)}, "
        f"{rows_text(sweep.best.candidate.rows)} a device, remat {best.choices['remat_decoder']}: "
        f"{best.estimate.tokens_per_second:,.0f} tokens/s a device."
    )


def _reasons(kind: str, reasons: Sequence[tuple[str, int]]) -> list[str]:
    lines = [f"{kind} {count} x: {reason}" for reason, count in reasons[:_MOST_REASONS]]
    rest = sum(count for _, count in reasons[_MOST_REASONS:])
    return [*lines, f"{kind} {rest} more, for other reasons: see --csv"] if rest else lines
