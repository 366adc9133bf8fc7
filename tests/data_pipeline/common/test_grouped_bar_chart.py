"""Bars as long as their values, with names that a reader of any kind finds."""

from xml.etree import ElementTree

import pytest

from data_pipeline.common.grouped_bar_chart import grouped_bar_chart


def widths(figure: str) -> list[float]:
    return [float(rect.get("width") or 0) for rect in ElementTree.fromstring(figure).iter("rect")]


def test_bars_are_in_proportion_and_stay_inside() -> None:
    figure = grouped_bar_chart("T", ["a", "long <label>"], {"x": [1, 4], "y": [0, 2]}, "share")
    one, none, four, two = widths(figure)
    assert none == 0
    assert four == pytest.approx(4 * one, abs=0.2) and two == pytest.approx(2 * one, abs=0.2)
    tree = ElementTree.fromstring(figure)
    width = float((next(tree.iter("svg")).get("viewBox") or "").split()[2])
    assert all(
        float(rect.get("x") or 0) + float(rect.get("width") or 0) <= width
        for rect in tree.iter("rect")
    )
    assert "long &lt;label&gt;, y: 2" in figure
    assert [i.get("class") for i in tree.iter("i")] == ["key series-0", "key series-1"]


def test_shares_are_written_in_percent() -> None:
    figure = grouped_bar_chart("T", ["a"], {"x": [0.125]}, "share", percent=True)
    assert "a, x: 12.5%" in figure
    assert ">10%<" in figure


def test_nothing_to_draw_is_no_error() -> None:
    assert widths(grouped_bar_chart("T", [], {"x": []}, "share")) == []
    assert widths(grouped_bar_chart("T", ["a"], {"x": [0]}, "share")) == [0]
