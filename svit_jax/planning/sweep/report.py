"""A sweep as one HTML file that explains itself: ranked plans, plots, and what was left out."""

import itertools
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from data_pipeline.common.dot_chart import DOT_STYLE, Dots, dot_chart
from data_pipeline.common.grouped_bar_chart import grouped_bar_chart
from data_pipeline.common.html import (
    Html,
    Series,
    element,
    fragment,
    line_chart,
    page,
    table,
)
from svit_jax.planning.plan import Plan
from svit_jax.planning.sweep.grid import Outcome, mesh_text
from svit_jax.planning.sweep.table import GIB, HEADER, MARK, Sweep, cells, summary

_MOST_ROWS, _MOST_MESHES, _MOST_LINES = 100, 12, 3
Key = TypeVar("Key", bound=Hashable)


def render_sweep(sweep: Sweep) -> str:
    """The page as HTML text; a section without data is left out."""
    configs = list(dict.fromkeys(outcome.candidate.config for outcome in sweep.outcomes))
    title = f"Plans of {', '.join(configs)}"
    said = summary(sweep)
    plans = [outcome.plan for outcome in sweep.outcomes if outcome.plan]
    body = fragment(
        element("h1", title),
        element("p", said),
        element(
            "p",
            "Each row is the real training step of the config, compiled for the topology on a "
            "machine that has none. Memory is the compiler's own figure; times are a roofline "
            "estimate, not a measurement (docs/planning.md). The fastest that fits comes first.",
            class_="soft",
        ),
        _best(sweep),
        _memory(plans),
        _meshes(plans),
        _scaling(plans),
        _pareto(plans),
        _ranked(sweep),
        _without_plan(sweep),
        _versions(sweep),
    )
    return page(title, body, description=said, style=DOT_STYLE)


def _grouped(items: Iterable[Plan], key: Callable[[Plan], Key]) -> dict[Key, list[Plan]]:
    """The plans by a key, in their order (best first)."""
    found: dict[Key, list[Plan]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _kind(plan: Plan) -> str:
    return f"{plan.topology}, {plan.choices['mode']}"


def _best(sweep: Sweep) -> Html:
    fitting: dict[str, Outcome] = {}
    for outcome in sweep.outcomes:
        if outcome.plan and outcome.fits:
            fitting.setdefault(_kind(outcome.plan), outcome)
    if not fitting:
        return Html("")
    return fragment(
        element("h2", "The fastest that fits"),
        table(
            (*HEADER[1:], "How to plan it again"),
            [
                [*cells(0, outcome)[1:], element("code", _again(outcome), class_="small")]
                for outcome in fitting.values()
            ],
            numeric=(5, 7, 8, 9),
        ),
    )


def _again(outcome: Outcome) -> str:
    candidate = outcome.candidate
    settings = " ".join(f"--{setting}" for setting in candidate.settings)
    return f"svit plan --config {candidate.config} --topology {candidate.topology} {settings}"


def _memory(plans: list[Plan]) -> Html:
    """Lines of the best combinations of mesh and policy that were tried at several rows."""
    charts = []
    for kind, alike in _grouped(plans, _kind).items():
        lines = _grouped(alike, lambda plan: f"{mesh_text(plan.mesh)}, {_remat(plan)}")
        several = {name: line for name, line in lines.items() if len(line) > 1}
        if not several:
            continue
        series = [
            Series(name, sorted((_rows(plan), plan.memory.total / GIB) for plan in line))
            for name, line in itertools.islice(several.items(), _MOST_LINES)
        ]
        ends = [x for one in series for x, _ in one.points]
        capacity = alike[0].memory.capacity / GIB
        series.append(Series("a device has", [(x, capacity) for x in (min(ends), max(ends))]))
        charts.append(line_chart(kind, series, "rows a device at a time", "GiB a device"))
    return _section(
        "Memory against batch",
        "How much a device needs when it takes more rows at a time, for the best meshes and remat "
        "policies.",
        charts,
    )


def _meshes(plans: list[Plan]) -> Html:
    charts = []
    for kind, alike in _grouped(filter(_fits, plans), _kind).items():
        best = [found[0] for found in _grouped(alike, lambda p: mesh_text(p.mesh)).values()]
        shown = best[:_MOST_MESHES]
        if len(shown) > 1:
            times = {"estimate": [1000 * _per_sample(p, p.estimate.seconds) for p in shown]}
            for limit in shown[0].estimate.limits:
                times[limit] = [
                    1000 * _per_sample(p, p.estimate.limits.get(limit, 0)) for p in shown
                ]
            labels = [mesh_text(plan.mesh) for plan in shown]
            charts.append(grouped_bar_chart(kind, labels, times, "milliseconds a sample"))
    return _section(
        "Time against mesh",
        "Each mesh with the rows and the remat policy that make it fastest: milliseconds of the "
        "whole slice for a sample (a dialogue), and how long each resource is busy with it.",
        charts,
    )


def _scaling(plans: list[Plan]) -> Html:
    """Throughput a device against the number of devices, the best plan for each number."""
    lines = _grouped(
        filter(_fits, plans), lambda plan: f"{plan.device_kind}, {plan.choices['mode']}"
    )
    series = []
    for name, alike in lines.items():
        best = [found[0] for found in _grouped(alike, lambda plan: plan.devices).values()]
        if len(best) > 1:
            points = [(p.devices, p.estimate.tokens_per_second, _said(p), True) for p in best]
            series.append(Dots(name, sorted(points), joined=True))
    charts = [
        dot_chart(
            "Tokens a second of one device",
            series[start : start + 4],
            "devices",
            "tokens/s a device",
            doubling=True,
        )
        for start in range(0, len(series), 4)
    ]
    return _section(
        "Scaling",
        "The fastest plan that fits for each number of devices. A flat line scales perfectly. It is "
        "weak scaling where the step's rows grow with the devices (--grow-batch), and strong scaling "
        "where the step keeps them.",
        charts,
    )


def _pareto(plans: list[Plan]) -> Html:
    charts = []
    for kind, alike in _grouped(plans, _kind).items():
        policies = _grouped(alike, _remat)
        series = [
            Dots(name, [(*_place(plan), _said(plan), _fits(plan)) for plan in found])
            for name, found in policies.items()
        ]
        front = [_place(plan) for plan in pareto(alike)]
        if len(alike) > 1:
            charts.append(dot_chart(kind, series, "GiB a device", "tokens/s a device", front=front))
    return _section(
        "Memory against speed",
        "Every plan; a hollow point does not fit. The dashed line joins those that nothing beats in "
        "both memory and speed (the Pareto front).",
        charts,
    )


def pareto(plans: Iterable[Plan]) -> list[Plan]:
    """The plans that fit of which no other needs less memory and is as fast, least memory first."""
    front: list[Plan] = []
    for plan in sorted(filter(_fits, plans), key=lambda p: (p.memory.total, -_speed(p))):
        if not front or _speed(plan) > _speed(front[-1]):
            front.append(plan)
    return front


def _ranked(sweep: Sweep) -> Html:
    planned = sweep.planned
    if not planned:
        return Html("")
    rows = [cells(rank, each) for rank, each in enumerate(planned[:_MOST_ROWS], start=1)]
    more = len(planned) - len(rows)
    notes = [f"{MARK} not the paper's recipe: {text}" for text in sweep.departures()]
    return fragment(
        element("h2", "All plans, ranked"),
        table(HEADER, rows, numeric=(0, 6, 8, 9, 10)),
        *(element("p", note, class_="small soft") for note in notes),
        element("p", f"{more} more are in --csv and --json.") if more else "",
    )


def _without_plan(sweep: Sweep) -> Html:
    rows = [
        (count, who, reason)
        for skipped, who in ((False, "the compiler"), (True, "the trainer"))
        for reason, count in sweep.reasons(skipped)
    ]
    if not rows:
        return Html("")
    return fragment(
        element("h2", "Without a plan"),
        element(
            "p",
            "What the trainer would refuse was not compiled; what the compiler refused is mostly "
            "out of memory.",
        ),
        table(("Candidates", "Refused by", "Reason"), rows, numeric=(0,)),
    )


def _versions(sweep: Sweep) -> Html:
    return fragment(
        element("h2", "Versions, and how to repeat it"),
        table(("What", "Version"), list(sweep.versions.items())),
        element("p", element("code", sweep.command)),
    )


def _section(title: str, text: str, charts: list[Html]) -> Html:
    if not charts:
        return Html("")
    return fragment(
        element("h2", title), element("p", text), element("div", *charts, class_="charts")
    )


def _fits(plan: Plan) -> bool:
    return plan.memory.fits


def _speed(plan: Plan) -> float:
    return plan.estimate.tokens_per_second


def _place(plan: Plan) -> tuple[float, float]:
    return plan.memory.total / GIB, _speed(plan)


def _remat(plan: Plan) -> str:
    return str(plan.choices["remat_decoder"])


def _rows(plan: Plan) -> float:
    return float(plan.choices["rows_per_device"])


def _per_sample(plan: Plan, seconds: float) -> float:
    return seconds / plan.work["samples"]


def _said(plan: Plan) -> str:
    """What a point shows when it is pointed at."""
    return (
        f"{plan.topology}, {mesh_text(plan.mesh)}, {_rows(plan):g} rows a device, {_remat(plan)}: "
        f"{plan.memory.total / GIB:.2f} GiB, {_speed(plan):,.0f} tokens/s"
    )
