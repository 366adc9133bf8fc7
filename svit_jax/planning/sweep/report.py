"""A sweep as one HTML file that explains itself: ranked plans, plots, and what was left out."""

from collections.abc import Sequence

from data_pipeline.common.dot_chart import DOT_STYLE
from data_pipeline.common.html import Html, element, fragment, page, table
from svit_jax.planning.sweep.grid import Outcome
from svit_jax.planning.sweep.report_charts import (
    kind_of,
    memory_charts,
    mesh_charts,
    pareto_charts,
    scaling_charts,
)
from svit_jax.planning.sweep.table import HEADER, MARK, Sweep, cells, summary

_MOST_ROWS, _MOST_REASONS = 200, 50
_STYLE = """
h1, code { overflow-wrap: anywhere; }
.plans tbody { white-space: nowrap; }
.charts figure { max-width: 34rem; }
"""
_INTRODUCTION = (
    "Each plan is the real training step of the config, compiled for a slice that need not be "
    "there. Memory is the compiler's own figure; times are a roofline estimate and no measurement "
    "(docs/planning.md says how they are made). The fastest that fits comes first."
)


def sweep_page(sweep: Sweep) -> str:
    """The page as HTML text, which needs no other file; a section without data is left out."""
    configs = list(dict.fromkeys(outcome.candidate.config for outcome in sweep.outcomes))
    title = f"Plans of {', '.join(configs) or 'nothing'}"
    text = summary(sweep)
    plans = [outcome.plan for outcome in sweep.outcomes if outcome.plan]
    body = fragment(
        element("h1", title),
        element("p", text),
        element("p", _INTRODUCTION, class_="soft"),
        _best(sweep),
        _section(
            "Memory against batch",
            "What a device needs when it takes more rows at a time, for the fastest pairs of a "
            "mesh and a remat policy. A hollow point does not fit.",
            memory_charts(plans),
        ),
        _section(
            "Time against mesh",
            "Each mesh with the rows and the remat policy that make it fastest, and how long each "
            "resource is busy. A sample is a dialogue.",
            mesh_charts(plans),
        ),
        _section(
            "Scaling",
            "The fastest plan that fits for each number of devices. Where the step's rows grow "
            "with the devices (--grow-batch) this is weak scaling, and a flat line is perfect; "
            "where the step keeps its rows it is strong scaling.",
            scaling_charts(plans),
        ),
        _section(
            "Memory against speed",
            "Every plan; a hollow point does not fit. Those on the line are the Pareto front: no "
            "other plan is as fast with as little memory.",
            pareto_charts(plans),
        ),
        _ranked(sweep),
        _without_plan(sweep),
        element("h2", "To repeat it"),
        element("p", element("code", sweep.command)),
        _versions(sweep),
    )
    return page(title, body, description=text, style=DOT_STYLE + _STYLE)


def _best(sweep: Sweep) -> Html:
    """The fastest that fits of each topology and mode, with the command that plans it alone."""
    best: dict[str, Outcome] = {}
    for outcome in sweep.outcomes:
        if outcome.plan and outcome.fits:
            best.setdefault(kind_of(outcome.plan), outcome)
    if not best:
        return Html("")
    commands = [
        element("p", f"{kind}: ", element("code", _command(outcome)), class_="small")
        for kind, outcome in best.items()
    ]
    return fragment(
        element("h2", "The fastest that fits"),
        _table(list(best.values())),
        element("p", "One of them alone, with its collectives and its memory by kind:"),
        *commands,
        _marked(list(best.values())),
    )


def _command(outcome: Outcome) -> str:
    candidate = outcome.candidate
    settings = " ".join(f"--{setting}" for setting in candidate.settings)
    return f"svit plan --config {candidate.config} --topology {candidate.topology} {settings}"


def _ranked(sweep: Sweep) -> Html:
    planned = sweep.planned
    if not planned:
        return Html("")
    more = len(planned) - _MOST_ROWS
    return fragment(
        element("h2", "All plans, ranked"),
        _table(planned[:_MOST_ROWS]),
        element("p", f"{more} more are in --csv and --json.") if more > 0 else None,
        _marked(planned),
    )


def _table(outcomes: Sequence[Outcome]) -> Html:
    rows = [cells(rank, outcome) for rank, outcome in enumerate(outcomes, start=1)]
    return table(HEADER, rows, numeric=(0, 6, 8, 9, 10), class_="plans")


def _marked(outcomes: Sequence[Outcome]) -> Html:
    """What the marks in a table mean."""
    texts = dict.fromkeys(
        text for outcome in outcomes if outcome.plan for text in outcome.plan.departures
    )
    return fragment(
        *(element("p", f"{MARK} not the paper's recipe: {text}", class_="small") for text in texts)
    )


def _without_plan(sweep: Sweep) -> Html:
    rows = [
        (count, who, reason)
        for skipped, who in ((False, "the compiler"), (True, "the trainer"))
        for reason, count in sweep.reasons(skipped)
    ]
    if not rows:
        return Html("")
    rest = sum(count for count, _, _ in rows[_MOST_REASONS:])
    return fragment(
        element("h2", "Without a plan"),
        element("p", "What the trainer would refuse was not compiled."),
        table(("Candidates", "Refused by", "Reason"), rows[:_MOST_REASONS], numeric=(0,)),
        element("p", f"{rest} more have other reasons: see --csv.") if rest else None,
    )


def _versions(sweep: Sweep) -> Html:
    if not sweep.versions:
        return Html("")
    return table(("Package", "Version"), list(sweep.versions.items()))


def _section(title: str, text: str, charts: Sequence[Html]) -> Html:
    if not charts:
        return Html("")
    return fragment(
        element("h2", title), element("p", text), element("div", *charts, class_="charts")
    )
