"""Horizontal bars in groups, as SVG, in the style of the other charts."""

from collections.abc import Mapping, Sequence

from data_pipeline.common.html import Html, Number, element, nice_ticks

_WIDTH, _RIGHT, _BOTTOM = 440, 44, 26
_BAR, _GAP = 8, 9
_LETTER = 6.6


def grouped_bar_chart(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Number]],
    x_label: str,
    percent: bool = False,
) -> Html:
    """A figure with a group of bars for each label, a bar a series: each has a value a label.

    Values are finite and not negative. With `percent` they are shares, written as "12.5%".
    """

    def written(value: Number) -> str:
        return f"{100 * value:.3g}%" if percent else f"{value:,.4g}"

    left = 10 + _LETTER * max((len(label) for label in labels), default=0)
    largest = max((value for values in series.values() for value in values), default=0) or 1
    span = _WIDTH - left - _RIGHT
    group = _BAR * len(series) + _GAP
    floor = group * len(labels)
    marks = []
    for tick in nice_ticks(0, largest, about=4):
        x = f"{left + span * tick / largest:.1f}"
        marks.append(element("line", x1=x, x2=x, y1=0, y2=floor, class_="grid"))
        marks.append(element("text", written(tick), x=x, y=floor + 14, text_anchor="middle"))
    for place, label in enumerate(labels):
        top = place * group + _GAP / 2
        middle = f"{top + _BAR * len(series) / 2 + 4:.1f}"
        marks.append(element("text", label, x=f"{left - 6:.1f}", y=middle, text_anchor="end"))
        for index, (name, values) in enumerate(series.items()):
            bar = element(
                "rect",
                element("title", f"{label}, {name}: {written(values[place])}"),
                x=f"{left:.1f}",
                y=f"{top + index * _BAR:.1f}",
                width=f"{span * values[place] / largest:.1f}",
                height=_BAR - 1,
                class_=f"bar series-{index % 4}",
            )
            marks.append(bar)
    chart = element(
        "svg",
        *marks,
        viewBox=f"0 0 {_WIDTH} {floor + _BOTTOM}",
        role="img",
        aria_label=f"Bar chart, {title}: {x_label} of {len(labels)} groups.",
    )
    legend = [
        element("span", element("i", class_=f"key series-{index % 4}"), name)
        for index, name in enumerate(series)
    ]
    caption = element(
        "figcaption",
        element("strong", title),
        element("span", x_label),
        element("span", *legend, class_="legend"),
    )
    return element("figure", caption, chart, class_="chart")
