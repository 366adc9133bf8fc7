"""Points where their values say, inside the picture, with ticks that don't run into each other."""

import itertools
from xml.etree import ElementTree

import pytest

from data_pipeline.common.dot_chart import Dot, Dots, dot_chart


def tree(*arguments, **options) -> ElementTree.Element:
    return ElementTree.fromstring(dot_chart("T", *arguments, **options))


def places(figure: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(c.get("cx") or 0), float(c.get("cy") or 0)) for c in figure.iter("circle")]


def test_points_lie_in_proportion_and_inside() -> None:
    figure = tree([Dots("a", [Dot(x, y, f"{x}") for x, y in ((0, 0), (10, 2), (20, 8))])], "x", "y")
    (x0, y0), (x1, y1), (x2, y2) = places(figure)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y2 == pytest.approx(4 * (y0 - y1), abs=0.5)
    width, height = map(float, (next(figure.iter("svg")).get("viewBox") or "").split()[2:])
    assert all(4 <= x <= width - 4 and 4 <= y <= height - 4 for x, y in places(figure))


def test_doublings_are_even_and_each_has_a_tick() -> None:
    figure = tree([Dots("a", [Dot(x, 1, "") for x in (16, 32, 64, 1024)])], "x", "y", doubling=True)
    steps = [b[0] - a[0] for a, b in itertools.pairwise(places(figure))]
    assert steps[1] == pytest.approx(steps[0], abs=0.2)
    assert steps[2] == pytest.approx(4 * steps[0], abs=0.5)
    texts = [text.text for text in figure.iter("text")]
    assert all(tick in texts for tick in ("16", "32", "64", "1024"))


def test_ticks_that_would_overlap_are_left_out() -> None:
    dots = [Dot(x, 1, "") for x in range(1, 1001)]
    figure = tree([Dots("a", dots)], "x", "y", doubling=True)
    ends = [
        (float(text.get("x") or 0), len(text.text or "") * 6.6)
        for text in figure.iter("text")
        if (text.text or "").isdigit() and text.get("text-anchor") == "middle"
    ]
    assert len(ends) >= 5
    for (a, left), (b, right) in itertools.pairwise(sorted(ends)):
        assert a + left / 2 <= b - right / 2


def test_one_point_a_level_and_names_are_drawn() -> None:
    series = [Dots("a <b>", [Dot(4, 2, "here & there", filled=False)], joined=True)]
    figure = tree(series, "x", "y", doubling=True, level=("16 GiB", 16))
    assert len(places(figure)) == 1
    (circle,) = figure.iter("circle")
    assert "hollow" in (circle.get("class") or "")
    assert next(circle.iter("title")).text == "here & there"
    (line,) = (each for each in figure.iter("line") if each.get("class") == "level")
    assert float(line.get("y1") or 0) < places(figure)[0][1]
    assert "16 GiB" in [text.text for text in figure.iter("text")]


def test_no_points_are_no_error() -> None:
    assert "No points." in dot_chart("T", [Dots("a", [])], "x", "y")
