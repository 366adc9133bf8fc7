"""The report of a run: one HTML file that explains itself and needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.common.files import PathLike, write_text
from data_pipeline.common.html import (
    Html,
    Series,
    element,
    fragment,
    line_chart,
    page,
    table,
)
from svit_jax.evaluation.gallery import GalleryItem, ReferringItem
from svit_jax.evaluation.published import COLUMNS, PUBLISHED, official_figures
from svit_jax.evaluation.report_pictures import (
    PICTURE_STYLE,
    gallery_section,
    referring_section,
)

Number = int | float

_STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1px;
  background: var(--rule); border: 1px solid var(--rule); margin: 1.5rem 0; padding: 0; }
.tiles div { background: var(--paper); padding: .75rem 1rem; }
.tiles dt { color: var(--soft); font-size: .8125rem; line-height: 1.3; }
.tiles dd { margin: .15rem 0 0; font-size: 1.6rem; line-height: 1.2; font-weight: 600;
  font-variant-numeric: tabular-nums; }
@media (max-width: 36rem) {
  .accuracies th:last-child, .accuracies td:last-child { display: none; }
}
.range { width: 7.5rem; min-width: 6rem; height: 14px; margin: .3rem 0 0; }
.range .track { stroke: var(--rule); stroke-width: 1; }
.range .span { stroke: var(--series-0); stroke-width: 2; }
.range .seen { fill: var(--series-0); }
.range .unseen { fill: var(--paper); stroke: var(--series-0); stroke-width: 1.5; }
"""


@dataclass(frozen=True)
class StageReport:
    """One step of the run: wall-clock seconds and, where measured, peak memory in bytes."""

    name: str
    seconds: Number
    peak_memory_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class TrainingCurve:
    """A training stage's log: (step, loss, token accuracy 0..1 or None)."""

    name: str
    log: Sequence[tuple[int, Number, Number | None]]


@dataclass(frozen=True)
class RunReport:
    """All that the report shows, as plain data.

    `heldout` is what `summary.summarise` gave, `scores` each benchmark's official figures by its
    name, `data_name` what the questions were about ("a generated toy world").
    """

    title: str
    data_name: str
    heldout: Mapping[str, Any]
    stages: Sequence[StageReport] = ()
    curves: Sequence[TrainingCurve] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gallery: Sequence[GalleryItem] = ()
    referring: Sequence[ReferringItem] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def write_report(path: PathLike, report: RunReport) -> None:
    """Writes the report as one HTML file with its pictures inside.

    Raises BadRecordError where a picture to be shown is missing or broken.
    """
    write_text(path, render_report(report))


def render_report(report: RunReport) -> str:
    """The report as HTML text; a section without data is left out."""
    summary = summary_sentence(report)
    body = fragment(
        element("h1", report.title),
        element("p", summary),
        _tiles(report.heldout),
        _accuracies(report.heldout),
        _novel(report.heldout),
        _benchmarks(report),
        gallery_section(report.gallery),
        referring_section(report.referring),
        _curves(report.curves),
        _stages(report.stages),
        _versions(report),
    )
    return page(report.title, body, description=summary, style=_STYLE + PICTURE_STYLE)


def summary_sentence(report: RunReport) -> str:
    """The run in a paragraph of plain words with the headline figures."""
    heldout = report.heldout
    minutes = sum(stage.seconds for stage in report.stages) / 60
    text = (
        f"A SVIT model was trained and then asked {heldout['questions']:,} questions about "
        f"{report.data_name} that it had not seen in training. It answered "
        f"{_percent(heldout['with_image'])} of them correctly with the picture"
    )
    if heldout.get("blind") is not None:
        text += f", and {_percent(heldout['blind'])} when the picture was replaced by a blank one"
    if heldout.get("open_share") is not None:
        text += f"; {_percent(heldout['open_share'])} of the questions are not yes/no questions"
    text += "."
    if heldout.get("referring_iou_50") is not None:
        text += (
            f" Asked where something is, it drew the right box (half overlap or better) in "
            f"{_percent(heldout['referring_iou_50'])} of the cases."
        )
    return text + (f" The whole run took {minutes:.1f} minutes." if report.stages else "")


def _tiles(heldout: Mapping[str, Any]) -> Html:
    novel = heldout.get("novel_combinations") or {}
    tiles = [
        ("Correct, with the picture", heldout.get("with_image")),
        ("Correct, picture blanked", heldout.get("blind")),
        ("Novel combinations", novel.get("with_image")),
        ("Right box (IoU \u2265 0.5)", heldout.get("referring_iou_50")),
    ]
    cells = [
        element("div", element("dt", name), element("dd", _percent(value)))
        for name, value in tiles
        if value is not None
    ]
    return element("dl", *cells, class_="tiles")


def _accuracies(heldout: Mapping[str, Any]) -> Html:
    kinds = _accuracy_table("Kind", heldout.get("by_kind") or {}, heldout)
    benchmarks = _accuracy_table("Benchmark", heldout.get("by_benchmark") or {}, heldout)
    return fragment(
        element("h2", "Held-out accuracy"),
        element(
            "p",
            "Exact match, each answer parsed as its benchmark parses it. The difference to a "
            "blank picture, in points, is what the model sees rather than guesses.",
        ),
        element("h3", "By kind of question"),
        kinds,
        element("h3", "By benchmark"),
        benchmarks,
    )


def _accuracy_table(
    what: str, groups: Mapping[str, Mapping[str, Any]], everything: Mapping[str, Any]
) -> Html:
    rows = [_accuracy_row(name.replace("_", " "), figures) for name, figures in groups.items()]
    rows.append(_accuracy_row(element("strong", "all"), everything))
    header = (what, "With picture", "Blind", "Difference", "Questions", "Blind \u25cb to \u25cf")
    return table(header, rows, numeric=(1, 2, 3, 4), class_="accuracies")


def _accuracy_row(name: object, figures: Mapping[str, Any]) -> list[object]:
    seen, blind = figures["with_image"], figures.get("blind")
    return [
        name,
        _percent(seen),
        _percent(blind),
        "\u2013" if blind is None else f"{100 * (seen - blind):+.1f}".replace("-", "\u2212"),
        f"{figures['questions']:,}",
        _range(seen, blind),
    ]


def _range(seen: Number, blind: Number | None) -> Html:
    def across(value: Number) -> str:
        return f"{6 + 108 * value:.1f}"

    marks = [element("line", x1=6, x2=114, y1=7, y2=7, class_="track")]
    if blind is not None:
        line = element("line", x1=across(blind), x2=across(seen), y1=7, y2=7, class_="span")
        marks += [line, element("circle", cx=across(blind), cy=7, r=3.5, class_="unseen")]
    marks.append(element("circle", cx=across(seen), cy=7, r=4, class_="seen"))
    return element("svg", *marks, viewBox="0 0 120 14", class_="range", aria_hidden="true")


def _novel(heldout: Mapping[str, Any]) -> Html:
    novel = heldout.get("novel_combinations")
    if not novel:
        return Html("")
    blind = novel.get("blind")
    text = (
        f"{novel['questions']:,} of the questions ask about combinations that training showed "
        "only in parts (each word was seen, the pair was not). Of these the model answered "
        f"{_percent(novel['with_image'])} correctly"
    )
    text += f", and {_percent(blind)} without the picture." if blind is not None else "."
    return fragment(element("h2", "Novel combinations"), element("p", text))


def _benchmarks(report: RunReport) -> Html:
    figures = official_figures(report.scores)
    if not figures:
        return Html("")
    mme = report.scores.get("mme", {})
    rows: list[list[object]] = [
        [element("strong", "This run"), *(_figure(figures.get(column)) for column in COLUMNS)]
    ]
    for published in PUBLISHED:
        rows.append(
            [
                _unbroken(published.model),
                *(_figure(published.figures.get(column)) for column in COLUMNS),
            ]
        )
    maxima = ", ".join(
        f"{name} {mme[f'{name}_maximum']:.0f}"
        for name in ("perception", "cognition")
        if f"{name}_maximum" in mme
    )
    sources = "; ".join(dict.fromkeys(published.source for published in PUBLISHED))
    return fragment(
        element("h2", "Benchmark figures"),
        element(
            "p",
            element("strong", "Not comparable. "),
            f"This run was scored on {report.data_name} with the benchmarks' own formats and "
            "metrics; the published rows are 13-billion-parameter models on the real benchmarks. "
            "They stand here to show which figure is which. ",
            maxima and f"Attainable on MME with the subtasks of this run: {maxima}. ",
        ),
        table(
            ("Model", *map(_unbroken, COLUMNS)),
            rows,
            caption="VQAv2, GQA, SQA-I, SEED: accuracy; MMB, MMB-CN: circular accuracy; POPE: F1; "
            "MME-P, MME-C: perception and cognition scores",
            numeric=range(1, len(COLUMNS) + 1),
        ),
        element("p", f"Published figures: {sources}.", class_="soft small"),
    )


def _curves(curves: Sequence[TrainingCurve]) -> Html:
    charts = []
    for curve in curves:
        loss = [(step, loss) for step, loss, _ in curve.log]
        accuracy = [(step, value) for step, _, value in curve.log if value is not None]
        charts.append(
            line_chart(f"{curve.name}: loss", [Series("training loss", loss)], "step", "loss")
        )
        if accuracy:
            chart = line_chart(
                f"{curve.name}: accuracy",
                [Series("next-token accuracy", accuracy)],
                "step",
                "share right",
                y_range=(0, 1),
            )
            charts.append(chart)
    if not charts:
        return Html("")
    return fragment(element("h2", "Training"), element("div", *charts, class_="charts"))


def _stages(stages: Sequence[StageReport]) -> Html:
    if not stages:
        return Html("")
    rows = [
        [stage.name, _duration(stage.seconds), _memory(stage.peak_memory_bytes), stage.note]
        for stage in stages
    ]
    rows.append(["all", _duration(sum(stage.seconds for stage in stages)), "", ""])
    return fragment(
        element("h2", "Time and memory"),
        table(("Stage", "Time", "Peak memory", "Note"), rows, numeric=(1, 2)),
    )


def _versions(report: RunReport) -> Html:
    rows = [*report.settings.items(), *report.versions.items()]
    if not rows:
        return Html("")
    return fragment(element("h2", "Settings and versions"), table(("What", "Value"), rows))


def _unbroken(name: str) -> str:
    return name.replace("-", "\u2011")


def _percent(share: Number | None) -> str:
    return "\u2013" if share is None else f"{100 * share:.1f}\u202f%"


def _figure(value: Number | None) -> str:
    return "\u2013" if value is None else f"{value:.1f}"


def _duration(seconds: Number) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _memory(size: int | None) -> str:
    return "\u2013" if size is None else f"{size / 2**30:.2f} GiB"
