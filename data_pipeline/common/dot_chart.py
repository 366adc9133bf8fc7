"""Points in a plane, as SVG, in the style of the other charts; give the page DOT_STYLE."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_pipeline.common.html import (
    PLOT,
    Html,
    Number,
    element,
    nice_ticks,
    plot_axes,
    plot_figure,
    tick_text,
)

DOT_STYLE = """
.dot { stroke-width: 1.5; }
circle.series-0 { fill: var(--series-0); } circle.series-1 { fill: var(--series-1); }
circle.series-2 { fill: var(--series-2); } circle.series-3 { fill: var(--series-3); }
circle.hollow { fill: var(--paper); }
.level { stroke: var(--wrong); stroke-width: 1; stroke-dasharray: 5 3; }
"""

_RADIUS = 4
_INSET = 10
_LETTER = 6.6
Scale = Callable[[Number], float]


@dataclass(frozen=True)
class Dot:
    """A point; `said` shows where it is pointed at, and a hollow one is not `filled`."""

    x: Number
    y: Number
    said: str
    filled: bool = True


@dataclass(frozen=True)
class Dots:
    """Points of one name and colour. `joined`: a line runs through them in their order."""

    name: str
    points: Sequence[Dot]
    joined: bool = False


def dot_chart(
    title: str,
    series: Sequence[Dots],
    x_label: str,
    y_label: str,
    doubling: bool = False,
    level: tuple[str, Number] | None = None,
) -> Html:
    """A figure with the series' points: y, and x too, from 0 on.

    `doubling`: x is above 0, counts in powers of two, and has a tick at each value. `level` is a
    dashed line across, with its name.
    """
    dots = [dot for one in series for dot in one.points]
    if not dots:
        return element(
            "figure", element("figcaption", element("strong", title)), element("p", "No points.")
        )
    across, x_ticks = _x_scale([dot.x for dot in dots], doubling)
    high = max(*(dot.y for dot in dots), level[1] if level else 0, 1e-9)
    left, right, top, floor = PLOT

    def down(y: Number) -> float:
        return floor - y / high * (floor - top)

    marks = plot_axes(
        [(across(tick), tick_text(tick)) for tick in x_ticks],
        [(down(tick), _text(tick, high)) for tick in nice_ticks(0, high)],
        x_label,
        y_label,
    )
    if level:
        y = f"{down(level[1]):.1f}"
        marks.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="level"))
        beside = 14 if level[1] > high / 2 else -5  # below it, or above where the axis is near
        marks.append(element("text", level[0], x=left + 4, y=f"{down(level[1]) + beside:.1f}"))
    for index, one in enumerate(series):
        if one.joined:
            steps = "L".join(f"{across(dot.x):.1f} {down(dot.y):.1f}" for dot in one.points)
            marks.append(element("path", d=f"M{steps}", class_=f"line series-{index % 4}"))
        for dot in one.points:
            marks.append(
                element(
                    "circle",
                    element("title", dot.said),
                    cx=f"{across(dot.x):.1f}",
                    cy=f"{down(dot.y):.1f}",
                    r=_RADIUS,
                    class_=f"dot series-{index % 4}{'' if dot.filled else ' hollow'}",
                )
            )
    said = f"Points, {title}: {y_label} by {x_label}, {len(dots)} of them."
    return plot_figure(title, [one.name for one in series], marks, said)


def _text(tick: Number, high: Number) -> str:
    """All ticks of an axis in thousands or none: they are shorter, and alike."""
    return f"{tick / 1000:g}k" if high >= 10_000 else tick_text(tick)


def _x_scale(xs: Sequence[Number], doubling: bool) -> tuple[Scale, list[Number]]:
    """Where an x lies in the picture, and the values to write there."""
    left, right, _, _ = PLOT

    def placed(x: Number) -> Number:
        return math.log2(x) if doubling else x

    low, high = (placed(min(xs)) if doubling else 0.0), placed(max(xs))

    def across(x: Number) -> float:
        share = (placed(x) - low) / (high - low) if high > low else 0.5
        return left + _INSET + share * (right - left - 2 * _INSET)

    if not doubling:
        return across, list(nice_ticks(low, high))
    ticks: list[Number] = []
    for x in sorted(set(xs)):  # as many as can stand beside each other
        room = _LETTER * (len(tick_text(x)) + 1)
        if not ticks or across(x) - across(ticks[-1]) >= room:
            ticks.append(x)
    return across, ticks
