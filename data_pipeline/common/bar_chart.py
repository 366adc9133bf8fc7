"""Bars for pages of `html`: named bars, histograms, a heat map. Give the page BAR_STYLE."""

import math
from collections.abc import Mapping, Sequence

from data_pipeline.common.html import Html, Number, element, fragment, nice_ticks

BAR_STYLE = """
.bars { width: 100%; }
.bars th, .bars td { padding: .12rem .6rem .12rem 0; border: 0; vertical-align: middle; }
.bars tbody tr { border: 0; }
.bars tbody th { width: 1%; max-width: 15rem; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.bars td.number { width: 1%; white-space: nowrap; color: var(--soft); font-size: .875rem; }
.bars i { display: block; height: .8rem; min-width: 1px; border-radius: 0 2px 2px 0;
  background: var(--series-0); }
.chart .bar, .chart .cell { fill: var(--series-0); }
.chart .frame { fill: none; stroke: var(--rule); }
"""

_WIDTH, _HEIGHT = 440, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_WIDEST = 48


def bar_chart(title: str, bars: Sequence[tuple[str, Number]], note: str | None = None) -> Html:
    """A figure with a horizontal bar for each (name, value), values 0 or more, in the given order.

    It is a table, so that it can be read out, copied and printed.
    """
    largest = max((value for _, value in bars), default=0) or 1
    rows = [
        element(
            "tr",
            element("th", name, scope="row", title=name),
            element("td", element("i", style=f"width:{100 * value / largest:.2f}%")),
            element("td", f"{value:,}", class_="number"),
        )
        for name, value in bars
    ]
    body = element("table", element("tbody", *rows), class_="bars") if rows else _NOTHING
    return _figure(title, note, body)


def binned(counts: Mapping[int, int], bins: int = 40) -> tuple[int, list[tuple[int, int]], int]:
    """Whole-number values gathered into at most about `bins` bins of equal, round width.

    Returns the width, (first value, count) of each bin from the least value's to the last, and the
    count beyond: values above the 99th percentile are not drawn where they would more than double
    the range.
    """
    total, below, high = sum(counts.values()), 0, 0
    for high in sorted(counts):
        below += counts[high]
        if below >= 0.99 * total:
            break
    low, largest = min(counts), max(counts)
    if largest - low <= 2 * (high - low):
        high = largest
    width = _round_width((high - low + 1) / bins)
    start = low // width * width
    gathered = [0] * ((high - start) // width + 1)
    for value, count in counts.items():
        if value <= high:
            gathered[(value - start) // width] += count
    drawn = [(start + place * width, count) for place, count in enumerate(gathered)]
    return width, drawn, total - sum(gathered)


def histogram(title: str, counts: Mapping[int, int], x_label: str, scale: float = 1.0) -> Html:
    """A figure with how often each value occurs, `counts` by whole-number value.

    `scale` is what a value of 1 stands for on the axis: 0.05 for shares counted in twentieths.
    """
    if not counts:
        return _figure(title, None, _NOTHING)
    width, bins, beyond = binned(counts)
    low, high = bins[0][0], bins[-1][0] + width
    tallest = max(count for _, count in bins)
    floor, room = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM

    def across(value: Number) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    marks = []
    for tick in _whole(nice_ticks(0, tallest, 4)):
        y = floor - tick / tallest * room
        marks.append(_line(_LEFT, _WIDTH - _RIGHT, y, "grid"))
        marks.append(_text(_LEFT - 8, y + 4, f"{tick:,.0f}", "end"))
    # A bar of one value stands above its tick, a bar of several between two.
    single = width == 1 and scale == 1
    middle = 0.5 if single else 0
    for tick in _whole(nice_ticks(low * scale, (high - single) * scale), scale):
        marks.append(_text(across(tick / scale + middle), floor + 18, f"{tick:g}", "middle"))
    for value, count in bins:
        left, right = across(value), across(value + width)
        if single:
            spare = max(0, right - left - _WIDEST) / 2
            left, right = left + spare, right - spare
        tall = count / tallest * room
        last = "" if width == 1 else f"–{(value + width - (scale == 1)) * scale:g}"
        marks.append(
            element(
                "rect",
                element("title", f"{value * scale:g}{last}: {count:,}"),
                x=f"{left + 0.5:.1f}",
                y=f"{floor - tall:.1f}",
                width=f"{max(right - left - 1, 0.5):.1f}",
                height=f"{tall:.1f}",
                class_="bar",
            )
        )
    marks.append(_line(_LEFT, _WIDTH - _RIGHT, floor, "axis"))
    marks.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_label, "middle"))
    chart = _svg(_WIDTH, _HEIGHT, f"Histogram, {title}, by {x_label}.", marks)
    note = f"{beyond:,} beyond {(high - 1) * scale:g} are not drawn" if beyond else None
    return _figure(title, note, chart)


def heat_map(title: str, grid: Sequence[Sequence[Number]], note: str | None = None) -> Html:
    """A figure with a square cell for each value, 0 or more: the darker, the larger. The first row
    is the upper one."""
    largest = max((value for row in grid for value in row), default=0)
    if not largest:
        return _figure(title, note, _NOTHING)
    size, columns, rows = 20, len(grid[0]), len(grid)
    cells = [
        element(
            "rect",
            element("title", f"{value:,}"),
            x=x * size,
            y=y * size,
            width=size,
            height=size,
            class_="cell",
            fill_opacity=f"{value / largest:.3f}",
        )
        for y, row in enumerate(grid)
        for x, value in enumerate(row)
    ]
    frame = element("rect", width=columns * size, height=rows * size, class_="frame")
    label = f"Heat map, {title}."
    return _figure(title, note, _svg(columns * size, rows * size, label, [*cells, frame]))


_NOTHING = element("p", "Nothing to draw.")


def _whole(ticks: Sequence[float], unit: float = 1.0) -> list[float]:
    """The ticks that are whole multiples of the unit: between two values there is nothing."""
    return [tick for tick in ticks if abs(tick / unit - round(tick / unit)) < 1e-6]


def _round_width(rough: float) -> int:
    if rough <= 1:
        return 1
    magnitude = 10 ** math.floor(math.log10(rough))
    return next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)


def _figure(title: str, note: str | None, content: Html) -> Html:
    caption = element("figcaption", element("strong", title), note and element("span", note))
    return element("figure", fragment(caption, content), class_="chart")


def _svg(width: int, height: int, label: str, marks: Sequence[Html]) -> Html:
    return element("svg", *marks, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _line(left: Number, right: Number, y: Number, class_: str) -> Html:
    return element("line", x1=left, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", class_=class_)


def _text(x: Number, y: Number, text: str, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
