"""The report of `svit eval`: this run beside the published models, as HTML, JSON and Markdown."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.common.files import PathLike, write_json, write_text
from data_pipeline.common.html import Html, element, fragment, page, table
from svit_jax.evaluation.compare import (
    COMPARISON_COLUMNS,
    Comparison,
    comparison_cells,
)
from svit_jax.evaluation.gallery import choose_gallery
from svit_jax.evaluation.intervals import Interval, bootstrap
from svit_jax.evaluation.judged import Judged, Verdict
from svit_jax.evaluation.markdown import markdown_table
from svit_jax.evaluation.published import PLACES, PUBLISHED
from svit_jax.evaluation.report_pictures import PICTURE_STYLE, gallery_section
from svit_jax.evaluation.run import scores
from svit_jax.evaluation.summary import BenchmarkRun

_NOTHING = "\u2013"


@dataclass(frozen=True)
class EvalReport:
    """What was asked of which checkpoint, and how it answered. `strict` holds the figures without
    the official code's quirks, if they were wanted; `compared` this run, as second, against
    another; `judged` what a judge said of benchmarks that need one."""

    checkpoint: str
    data: str
    runs: Mapping[str, BenchmarkRun]
    strict: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    compared: Sequence[Comparison] = ()
    notes: Sequence[str] = ()
    judged: Mapping[str, Verdict] = field(default_factory=dict)


def write_eval_report(folder: PathLike, report: EvalReport, stem: str = "report") -> None:
    """Writes `report.html`, `report.json` and `report.md` (or of another stem) into the folder."""
    found: Scores = scores(report.runs) | {
        name: verdict.figures for name, verdict in report.judged.items()
    }
    intervals = figure_intervals(report.runs) | _judged_intervals(report)
    root = Path(folder)
    write_json(root / f"{stem}.json", _as_json(report, found, intervals))
    write_text(root / f"{stem}.md", _as_markdown(report, found, intervals))
    write_text(root / f"{stem}.html", _as_html(report, found, intervals))


def figure_intervals(runs: Mapping[str, BenchmarkRun]) -> dict[str, dict[str, Interval]]:
    """The 95 % interval of each headline figure; none where the truth is not public."""
    return {
        name: {
            figure: bootstrap(tally, f"{name}/{figure}")
            for figure, tally in run.benchmark.tallies(run.questions, run.answers).items()
        }
        for name, run in runs.items()
        if all(question.truth is not None for question in run.questions)
    }


def _judged_intervals(report: EvalReport) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    for name, verdict in report.judged.items():
        run = report.runs[name]
        assert isinstance(run.benchmark, Judged)
        tallies = run.benchmark.graded_tallies(run.questions, verdict.grades)
        found[name] = {figure: bootstrap(t, f"{name}/{figure}") for figure, t in tallies.items()}
    return found


Scores = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Interval]]


def _as_json(report: EvalReport, found: Scores, intervals: Intervals) -> dict[str, Any]:
    return {
        "checkpoint": report.checkpoint,
        "data": report.data,
        "notes": list(report.notes),
        "benchmarks": {
            name: {
                "questions": len(run.questions),
                "scores": found[name],
                "intervals": {
                    figure: dataclasses.astuple(interval)
                    for figure, interval in intervals.get(name, {}).items()
                },
                "strict": report.strict.get(name),
                "quirks": list(run.benchmark.quirks),
                "judge": report.judged[name].judge if name in report.judged else None,
            }
            for name, run in report.runs.items()
        },
        "compared": [dataclasses.asdict(comparison) for comparison in report.compared],
        "published": [dataclasses.asdict(row) for row in PUBLISHED],
    }


def _published_table(found: Scores, intervals: Intervals) -> tuple[list[str], list[list[str]]]:
    """A row a figure: this run with its interval, then the published models."""
    header = ["Figure", "This run", "95 % interval", *(row.model for row in PUBLISHED)]
    rows = []
    for column, place in PLACES.items():
        name, figure = place or ("", "")
        value = found.get(name, {}).get(figure)
        interval = intervals.get(name, {}).get(figure)
        rows.append(
            [
                column,
                _figure(value),
                f"{interval.low:.1f} to {interval.high:.1f}" if interval else _NOTHING,
                *(_figure(row.figures.get(column)) for row in PUBLISHED),
            ]
        )
    return header, rows


def _breakdown(
    name: str, report: EvalReport, found: Scores, intervals: Intervals
) -> tuple[list[str], list[list[str]]]:
    """All figures of a benchmark: its categories, subtasks, subjects or dimensions."""
    strict = report.strict.get(name)
    header = ["Figure", "Official", "95 % interval"] + ([] if strict is None else ["Strict"])
    rows = []
    for figure in dict.fromkeys((*found[name], *(strict or {}))):
        interval = intervals.get(name, {}).get(figure)
        row = [
            figure.replace("_", " "),
            _figure(found[name].get(figure)),
            f"{interval.low:.1f} to {interval.high:.1f}" if interval else "",
        ]
        rows.append(row + ([] if strict is None else [_figure(strict.get(figure))]))
    return header, rows


def _head(report: EvalReport) -> list[str]:
    asked = sum(len(run.questions) for run in report.runs.values())
    first = f"{report.checkpoint} answered {asked:,} questions of {report.data}."
    return [
        first,
        "Published models have 13 billion parameters. Their VQAv2, VizWiz and MMMU-test figures "
        "are of test splits that only the servers score; this run's figures of those benchmarks "
        "are of the val splits. SEED is all of SEED-Bench-1, SEED-image its pictures alone. Their "
        "LLaVA-W and MM-Vet were graded by GPT-4 as it was in 2023; what a judge of today says of "
        "this run stands in rows of its own.",
        "Intervals are of a bootstrap over pictures (1,000 draws by a fixed seed).",
        *report.notes,
    ]


def _after(name: str, report: EvalReport, found: Scores) -> list[str]:
    """What must be known about a benchmark's figures."""
    run = report.runs[name]
    if isinstance(run.benchmark, Judged) and name not in report.judged:
        return [f"{len(run.questions):,} answers for a judge: see `svit judge --help`."]
    if not found[name]:
        return [f"{len(run.questions):,} questions without public answers: see {name}.upload/."]
    quirks = [f"Quirk of the official scoring: {quirk}" for quirk in run.benchmark.quirks]
    judged = [report.judged[name].note] if name in report.judged else []
    return [f"{len(run.questions):,} questions.", *judged, *quirks]


def _sources() -> str:
    return "Published: " + "; ".join(dict.fromkeys(row.source for row in PUBLISHED)) + "."


def _as_markdown(report: EvalReport, found: Scores, intervals: Intervals) -> str:
    parts = ["# Evaluation\n", *(f"{line}\n" for line in _head(report))]
    parts += [markdown_table(*_published_table(found, intervals)), _sources() + "\n"]
    if report.compared:
        rows = [comparison_cells(comparison) for comparison in report.compared]
        parts += ["## Against another run\n", markdown_table(COMPARISON_COLUMNS, rows)]
    for name in report.runs:
        parts.append(f"## {name}\n")
        if found[name]:
            parts.append(markdown_table(*_breakdown(name, report, found, intervals)))
        parts += [f"{line}\n" for line in _after(name, report, found)]
    return "\n".join(parts)


def _as_html(report: EvalReport, found: Scores, intervals: Intervals) -> str:
    body = [element("h1", "Evaluation"), *(element("p", line) for line in _head(report))]
    body += [_html_table(*_published_table(found, intervals))]
    body += [element("p", _sources(), class_="soft small")]
    if report.compared:
        rows = [comparison_cells(comparison) for comparison in report.compared]
        body += [
            element("h2", "Against another run"),
            _html_table(COMPARISON_COLUMNS, rows),
            element("p", "Second is this run. McNemar's test takes questions as independent."),
        ]
    for name in report.runs:
        body.append(element("h2", name))
        if found[name]:
            body.append(_html_table(*_breakdown(name, report, found, intervals)))
        body += [element("p", line, class_="small") for line in _after(name, report, found)]
    body.append(gallery_section(choose_gallery(list(report.runs.values()))))
    title = f"Evaluation of {report.checkpoint}"
    return page(title, fragment(*body), description=title, style=PICTURE_STYLE)


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    return table(header, rows, numeric=range(1, len(header)))


def _figure(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1f}"
