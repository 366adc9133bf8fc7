"""Self-contained HTML: escaped elements, pictures as data URIs, tables and line charts as SVG.

A page made here needs nothing but itself: no network, no scripts. It reads well on a phone, on
paper and in the dark.
"""

import base64
import html
import io
import math
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.html_style import STYLE

Number = int | float

_VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta"))
_SIGNATURES = (
    (b"\xff\xd8", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"<svg", "image/svg+xml"),
)


class Html(str):
    """Text that is markup already; every other string is escaped when it enters an element."""


def escape(value: object) -> Html:
    """The value as markup: `Html` as it is, None as nothing, anything else escaped."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(str(value), quote=True))


def fragment(*children: object) -> Html:
    """The children one after another, escaped where they are not markup."""
    return Html("".join(escape(child) for child in children))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """The element `tag` with its children and attributes, all escaped.

    Attribute names lose a trailing underscore and turn the others to hyphens (`class_`,
    `aria_label`). True gives a bare attribute, None and False none at all.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.removesuffix("_").replace("_", "-")
        parts.append(name if value is True else f'{name}="{html.escape(str(value))}"')
    opening = Html(f"<{' '.join(parts)}>")
    if tag in _VOID:
        return opening
    return fragment(opening, *children, Html(f"</{tag}>"))


def page(
    title: str,
    body: str,
    description: str | None = None,
    style: str = "",
    head: Html | None = None,
) -> str:
    """A whole HTML document around `body` (markup), with the house's style and, after it, `style`.

    `head` is put into the document's head, before all that could load something. The page follows
    the reader's light or dark setting and the width of the screen.
    """
    whole_head = element(
        "head",
        element("meta", charset="utf-8"),
        head,
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        description and element("meta", name="description", content=description),
        element("title", title),
        element("style", Html(STYLE + style)),
    )
    content = element("body", element("main", Html(body)))
    return f"<!DOCTYPE html>\n{element('html', whole_head, content, lang='en')}\n"


def data_uri(source: str | pathlib.Path | bytes, longest_side: int | None = None) -> str:
    """The picture as a `data:` URI, from a file or its bytes.

    With `longest_side` (pixels) a larger picture is scaled down and stored as JPEG.
    Raises BadRecordError for a missing file or bytes that are no picture.
    """
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = pathlib.Path(source).read_bytes()
        except OSError as error:
            raise BadRecordError(f"picture {name} cannot be read: {error.strerror}.") from None
    if longest_side is not None:
        data = _scaled_down(data, longest_side, name)
    kind = next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise BadRecordError(f"picture {name} is not a JPEG, PNG, GIF, WebP or SVG file.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _scaled_down(data: bytes, longest_side: int, name: str) -> bytes:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if max(picture.size) <= longest_side:
                return data
            smaller = picture.convert("RGB")
            smaller.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
            target = io.BytesIO()
            smaller.save(target, "JPEG", quality=85)
    except (OSError, ValueError, Image.DecompressionBombError):
        raise BadRecordError(f"picture {name} cannot be decoded; it is broken.") from None
    return target.getvalue()


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: str | None = None,
    numeric: Iterable[int] = (),
    class_: str | None = None,
) -> Html:
    """A table with column headers; the first cell of a row is its header.

    `numeric` columns are set to the right. On a narrow screen the table scrolls by itself.
    """
    to_the_right = frozenset(numeric)

    def cell(column: int, content: object, head: str | None) -> Html:
        style = "number" if column in to_the_right else None
        return element("th" if head else "td", content, scope=head, class_=style)

    head = element("tr", *(cell(i, content, "col") for i, content in enumerate(header)))
    body = [
        element("tr", *(cell(i, content, None if i else "row") for i, content in enumerate(row)))
        for row in rows
    ]
    content = element(
        "table",
        caption and element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        class_=class_,
    )
    label = caption or "table"
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


@dataclass(frozen=True)
class Series:
    """A named line of (x, y) points, x ascending; a y that is not finite breaks the line."""

    name: str
    points: Sequence[tuple[Number, Number]]


_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
PLOT = (_LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM)
"""Left, right, top and bottom of the field that points are drawn in."""

_MOST_POINTS = 240


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    y_range: tuple[Number, Number] | None = None,
) -> Html:
    """A figure with an SVG chart: axes with ticks, a legend, one line a series.

    `y_range` fixes the vertical axis, which otherwise spans 0 (or the least value, if negative)
    to the largest value. Lines of more than 240 points are drawn as means of neighbours.
    """
    drawn = [Series(one.name, _thinned(one.points)) for one in series]
    finite = [(x, y) for one in drawn for x, y in one.points if math.isfinite(y)]
    if not finite:
        caption = element("figcaption", element("strong", title))
        return element("figure", caption, element("p", "No points."), class_="chart")
    x_low, x_high = min(x for x, _ in finite), max(x for x, _ in finite)
    y_low, y_high = y_range or (min(0, *(y for _, y in finite)), max(y for _, y in finite))
    x_ticks, y_ticks = nice_ticks(x_low, x_high), nice_ticks(y_low, y_high)
    x_low, x_high = x_low, max(x_high, x_low + 1e-9)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1], y_low + 1e-9)

    def across(x: Number) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: Number) -> float:
        clipped = min(max(y, y_low), y_high)
        return _HEIGHT - _BOTTOM - (clipped - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    marks = plot_axes(
        [(across(tick), tick_text(tick)) for tick in x_ticks],
        [(down(tick), tick_text(tick)) for tick in y_ticks],
        x_label,
        y_label,
    )
    lines = [
        element("path", d=_path(one.points, across, down), class_=f"line series-{index % 4}")
        for index, one in enumerate(drawn)
    ]
    last = "; ".join(f"{one.name} ends at {_last(one.points)}" for one in series)
    said = f"Line chart, {title}: {y_label} by {x_label}. {last}."
    return plot_figure(title, [one.name for one in series], [*marks, *lines], said)


def plot_axes(
    x_ticks: Iterable[tuple[float, str]],
    y_ticks: Iterable[tuple[float, str]],
    x_label: str,
    y_label: str,
) -> list[Html]:
    """The marks of both axes within PLOT; a tick is a place in the picture and a text."""
    left, right, top, floor = PLOT
    marks = []
    for place, text in y_ticks:
        y = f"{place:.1f}"
        marks.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        marks.append(_label(left - 8, f"{place + 4:.1f}", text, "end"))
    for place, text in x_ticks:
        x = f"{place:.1f}"
        marks.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 5, class_="axis"))
        marks.append(_label(x, floor + 18, text, "middle"))
    marks.append(element("line", x1=left, x2=right, y1=floor, y2=floor, class_="axis"))
    marks.append(_label((left + right) / 2, _HEIGHT - 4, x_label, "middle"))
    middle = f"{(top + floor) / 2:g}"
    marks.append(_label(12, middle, y_label, "middle", transform=f"rotate(-90 12 {middle})"))
    return marks


def plot_figure(title: str, names: Iterable[str], marks: Iterable[Html], label: str) -> Html:
    """The figure of a plot with these marks: its title, a legend of its series, and `label` for
    those who can't see it."""
    chart = element("svg", *marks, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
    legend = [
        element("span", element("i", class_=f"key series-{index % 4}"), name)
        for index, name in enumerate(names)
    ]
    caption = element(
        "figcaption", element("strong", title), element("span", *legend, class_="legend")
    )
    return element("figure", caption, chart, class_="chart")


def nice_ticks(low: Number, high: Number, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about so many.

    A span of zero gives its one value.
    """
    if high <= low:
        return [float(low)]
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _label(x: object, y: object, text: str, anchor: str, **attributes: Any) -> Html:
    return element("text", text, x=x, y=y, text_anchor=anchor, **attributes)


def tick_text(value: Number) -> str:
    if abs(value) >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _last(points: Sequence[tuple[Number, Number]]) -> str:
    return f"{points[-1][1]:.4g}" if points else "nothing"


def _path(points: Sequence[tuple[Number, Number]], across: Any, down: Any) -> str:
    commands = []
    pen_down = False
    for x, y in points:
        if math.isfinite(y):
            commands.append(f"{'L' if pen_down else 'M'}{across(x):.1f} {down(y):.1f}")
        pen_down = math.isfinite(y)
    return "".join(commands)


def _thinned(points: Sequence[tuple[Number, Number]]) -> Sequence[tuple[Number, Number]]:
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
