"""The report of an experiment, as HTML, Markdown and JSON: the same figures in each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from data_pipeline.common.files import strict_json, write_json, write_text
from data_pipeline.common.grouped_bar_chart import grouped_bar_chart
from data_pipeline.common.html import element, fragment, page, table
from svit_jax.evaluation.markdown import markdown_table
from svit_jax.planning.sweep.grid import mesh_text
from tpu_scripts.experiments.comparison import Compared, ranking

TITLE = "Measured beside predicted"

_HEADER = (
    "mesh",
    "rows a device",
    "remat",
    "s a step: planned",
    "measured",
    "error",
    "tokens/s a device: planned",
    "measured",
    "error",
    "MFU: planned",
    "measured",
    "memory, GiB: planned",
    "measured",
    "error",
    "data wait",
    "compiling, s",
)
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows in the plan's order; `left_out` says which plans of the shortlist were not run."""

    rows: tuple[Compared, ...]
    steps: int
    warm_up: int
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What one must know to read the table, a sentence each."""
        found = [*self._hardware(), *self._order()]
        found += [f"Left out of the shortlist: {text}." for text in self.left_out]
        waiting = sum(row.state == "not run yet" for row in self.rows)
        if waiting:
            found.append(f"{waiting} rows are not run yet: the same command goes on with them.")
        return found

    def _hardware(self) -> list[str]:
        rows = [row for row in self.rows if row.measured]
        found = []
        for row in _first_of_each(rows):
            assert row.measured
            ran = f"{row.measured['devices']} x {row.measured['device_kind']}"
            planned = f"{row.plan.devices} x {row.plan.device_kind}"
            if row.rehearsal:
                found.append(
                    f"REHEARSAL: planned for {planned}, run on {ran}. The plan says nothing of "
                    "this hardware: its times and memory, the errors and the order mean nothing "
                    "here."
                )
            else:
                found.append(f"Planned for {planned}, run on {ran}.")
        changed = {
            f"{name} {row.plan.versions[name]}, run with {version}"
            for row in rows
            if row.measured
            for name, version in row.measured["versions"].items()
            if row.plan.versions.get(name, version) != version
        }
        return found + [f"Planned with {text}." for text in sorted(changed)]

    def _order(self) -> list[str]:
        found = ranking(self.rows)
        if found is None:
            return ["Of the order nothing can be said: it takes two measured rows."]
        return [
            f"Order by tokens a second: {found.agreeing} of {found.pairs} pairs come as planned "
            f"(Kendall's tau {found.tau:.2f}). Fastest is {_name(self.rows[found.best])}; "
            f"of the rows that ran the plan's first choice is {found.regret:.1%} slower."
        ]

    def cells(self) -> list[tuple[str, ...]]:
        """The measured rows under the header."""
        return [_cells(row) for row in self.rows if row.measured]

    def failures(self) -> list[tuple[str, str]]:
        return [(_name(row), row.reason) for row in self.rows if row.state == "failed"]

    def to_json(self) -> dict[str, Any]:
        found = ranking(self.rows)
        return {
            "steps": self.steps,
            "warm_up": self.warm_up,
            "notes": self.notes,
            "ranking": dataclasses.asdict(found) if found else None,
            "rows": [
                {
                    "state": row.state,
                    "rehearsal": row.rehearsal,
                    "config": row.plan.config,
                    "settings": list(row.plan.overrides),
                    "topology": row.plan.topology,
                    "mesh": dict(row.plan.mesh),
                    "predicted": {name: pair[0] for name, pair in row.figures.items()},
                    "measured": row.measured,
                    "errors": row.errors,
                    "reason": row.reason,
                }
                for row in self.rows
            ],
        }

    def markdown(self) -> str:
        parts = [f"# {TITLE}\n", self._how() + "\n", *(f"- {note}" for note in self.notes)]
        if self.cells():
            parts += ["", markdown_table(_HEADER, self.cells())]
        if self.failures():
            parts += ["## Failed\n", markdown_table(("row", "reason"), self.failures())]
        return "\n".join(parts) + "\n"

    def html(self) -> str:
        body = [
            element("h1", TITLE),
            element("p", self._how()),
            element("ul", *(element("li", note) for note in self.notes)),
        ]
        measured = [row for row in self.rows if row.measured]
        if measured:
            pairs = [row.figures["tokens_per_second"] for row in measured]
            bars = {
                "planned": [predicted for predicted, _ in pairs],
                "measured": [found or 0.0 for _, found in pairs],
            }
            names = [_name(row) for row in measured]
            body.append(grouped_bar_chart("Speed", names, bars, "tokens/s a device"))
            body.append(table(_HEADER, self.cells(), "Measured rows", range(1, len(_HEADER))))
        if self.failures():
            body.append(table(("row", "reason"), self.failures(), "Failed rows"))
        return page(TITLE, fragment(*body), description=self.notes[0])

    def _how(self) -> str:
        return (
            f"{self.steps} steps of the real loop each, the first {self.warm_up} left out; a step "
            "is their median. Errors are measured over planned, less one. Memory is planned by "
            "the compiler's total, and measured as the most that was in use at a moment."
        )

    def write(self, folder: epath.Path) -> None:
        """report.html, report.md and report.json in the folder."""
        write_json(folder / "report.json", strict_json(self.to_json()))
        write_text(folder / "report.md", self.markdown())
        write_text(folder / "report.html", self.html())


def _first_of_each(rows: Sequence[Compared]) -> list[Compared]:
    """A row for each pair of what was planned for and run on."""
    found: dict[Any, Compared] = {}
    for row in rows:
        assert row.measured
        key = row.plan.devices, row.plan.device_kind, row.measured["device_kind"]
        found.setdefault(key, row)
    return list(found.values())


def _name(row: Compared) -> str:
    choices = row.plan.choices
    return (
        f"{mesh_text(row.plan.mesh)}, rows {choices['rows_per_device']:g}, "
        f"{choices['remat_decoder']}"
    )


def _cells(row: Compared) -> tuple[str, ...]:
    figures, errors, choices = row.figures, row.errors, row.plan.choices
    assert row.measured

    def written(name: str, form: str, unit: float = 1.0, error: bool = True) -> list[str]:
        predicted, found = figures[name]
        cells = [
            format(predicted / unit, form),
            "-" if found is None else format(found / unit, form),
        ]
        return cells + ([f"{errors[name]:+.1%}" if name in errors else "-"] if error else [])

    return (
        mesh_text(row.plan.mesh),
        f"{choices['rows_per_device']:g}",
        str(choices["remat_decoder"]),
        *written("seconds", ".4g"),
        *written("tokens_per_second", ",.0f"),
        *written("mfu", ".1%", error=False),
        *written("peak_memory", ".2f", _GIB),
        f"{row.measured['data_wait']:.1%}",
        f"{row.measured['compile_seconds']:.0f}",
    )
