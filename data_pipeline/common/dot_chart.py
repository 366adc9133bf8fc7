"""Points in a plane, as SVG, in the style of the other charts; give the page DOT_STYLE."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_pipeline.common.html import Html, Number, element, nice_ticks

DOT_STYLE = """
.dot { stroke-width: 1.5; } .hollow { fill: var(--paper); }
circle.series-0 { fill: var(--series-0); } circle.series-1 { fill: var(--series-1); }
circle.series-2 { fill: var(--series-2); } circle.series-3 { fill: var(--series-3); }
circle.hollow { fill: var(--paper); }
.front { fill: none; stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
"""

_WIDTH, _HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 40
Scale = Callable[[Number], float]


@dataclass(frozen=True)
class Dots:
    """A named set of points: x, y, what is said of it, and whether it is filled. `joined`: a line
    runs through them in their order."""

    name: str
    points: Sequence[tuple[Number, Number, str, bool]]
    joined: bool = False


def dot_chart(
    title: str,
    series: Sequence[Dots],
    x_label: str,
    y_label: str,
    doubling: bool = False,
    front: Sequence[tuple[Number, Number]] = (),
) -> Html:
    """A figure with the series' points, y from 0 on; `doubling`: x counts in powers of two, and all
    are above 0. `front` is a dashed line, such as that of what nothing is better than."""
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] for one in series for point in one.points]
    if not xs:
        return element("figure", element("figcaption", element("strong", title)), "No points.")
    across, x_ticks = _x_scale(xs, doubling)
    high = max(*ys, 1e-9)
    y_ticks = nice_ticks(0, high)
    floor = _HEIGHT - _BOTTOM

    def down(y: Number) -> float:
        return floor - y / high * (floor - _TOP)

    marks = []
    for tick in y_ticks:
        y = f"{down(tick):.1f}"
        marks.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        marks.append(_text(_LEFT - 8, down(tick) + 4, f"{tick:,g}", "end"))
    for tick in x_ticks:
        x = f"{across(tick):.1f}"
        marks.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 5, class_="axis"))
        marks.append(_text(across(tick), floor + 18, f"{tick:,g}", "middle"))
    marks.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis"))
    marks.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_label, "middle"))
    middle = (_TOP + floor) / 2
    turned = f"rotate(-90 12 {middle:g})"
    marks.append(_text(12, middle, y_label, "middle", turned))
    if front:
        marks.append(_line(front, across, down, "front"))
    for index, one in enumerate(series):
        colour = f"series-{index % 4}"
        if one.joined:
            places = [(x, y) for x, y, _, _ in one.points]
            marks.append(_line(places, across, down, f"line {colour}"))
        for x, y, said, filled in one.points:
            dot = element(
                "circle",
                element("title", said),
                cx=f"{across(x):.1f}",
                cy=f"{down(y):.1f}",
                r=4,
                class_=f"dot {colour}" + ("" if filled else " hollow"),
            )
            marks.append(dot)
    chart = element(
        "svg",
        *marks,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"Points, {title}: {y_label} by {x_label}, {len(xs)} of them.",
    )
    legend = [
        element("span", element("i", class_=f"key series-{index % 4}"), one.name)
        for index, one in enumerate(series)
    ]
    caption = element(
        "figcaption", element("strong", title), element("span", *legend, class_="legend")
    )
    return element("figure", caption, chart, class_="chart")


def _x_scale(xs: Sequence[Number], doubling: bool) -> tuple[Scale, list[float]]:
    """Where an x lies in the picture, and the values to write there."""

    def placed(x: Number) -> float:
        return math.log2(x) if doubling else x

    low = placed(min(xs)) if doubling else 0.0
    high = max(placed(max(xs)), low + 1e-9)
    if doubling:
        ticks = [2.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    else:
        ticks = nice_ticks(low, high)
    width = _WIDTH - _LEFT - _RIGHT - 10
    return lambda x: _LEFT + 5 + (placed(x) - low) / (high - low) * width, ticks


def _text(x: Number, y: Number, text: str, anchor: str, transform: str | None = None) -> Html:
    return element(
        "text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, transform=transform
    )


def _line(points: Sequence[tuple[Number, Number]], across: Scale, down: Scale, class_: str) -> Html:
    steps = " L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in points)
    return element("path", d=f"M{steps}", class_=class_)
