"""Bars, bins and cells against their values."""

import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.common.bar_chart import bar_chart, binned, heat_map, histogram


def test_bars_are_as_long_as_their_values():
    figure = bar_chart("Kinds & <more>", [("a<b", 40), ("c", 10), ("none", 0)])
    tree = ElementTree.fromstring(figure)
    assert [th.text for th in tree.iter("th")] == ["a<b", "c", "none"]
    assert [i.get("style") for i in tree.iter("i")] == [
        "width:100.00%",
        "width:25.00%",
        "width:0.00%",
    ]
    assert tree.find("figcaption/strong").text == "Kinds & <more>"
    assert "Nothing to draw." in bar_chart("Empty", [])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 5000), st.integers(1, 50), min_size=1, max_size=80))
def test_every_value_is_in_one_bin_or_counted_beyond(counts):
    width, bins, beyond = binned(counts)
    assert len(bins) <= 82 and re.fullmatch("[125]0*", str(width))
    starts = [start for start, _ in bins]
    assert starts == list(range(starts[0], starts[0] + width * len(bins), width))
    end = starts[-1] + width
    for start, count in bins:
        inside = {value: n for value, n in counts.items() if start <= value < start + width}
        assert sum(inside.values()) >= count
    assert sum(count for _, count in bins) + beyond == sum(counts.values())
    assert all(value >= starts[0] for value in counts)
    if beyond:
        assert beyond <= 0.01 * sum(counts.values()) and max(counts) >= end - width


def test_a_long_tail_is_said_and_not_drawn():
    counts = Counter(dict.fromkeys(range(10), 100)) + Counter({9000: 3})
    assert binned(counts) == (1, [(value, 100) for value in range(10)], 3)
    assert "3 beyond 9 are not drawn" in histogram("Words", counts, "words")


def test_columns_are_as_tall_as_their_counts():
    tree = ElementTree.fromstring(histogram("Rounds", {1: 30, 3: 60}, "rounds"))
    bars = [bar for bar in tree.iter("rect") if bar.get("class") == "bar"]
    assert [bar.find("title").text for bar in bars] == ["1: 30", "2: 0", "3: 60"]
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[0] == pytest.approx(heights[2] / 2, abs=0.1) and heights[1] == 0
    ticks = [text.text for text in tree.iter("text") if text.get("text-anchor") == "middle"]
    assert ticks == ["1", "2", "3", "rounds"], "nothing between whole numbers"
    assert "Nothing to draw." in histogram("Empty", {}, "none")


def test_bins_of_a_scaled_axis_are_named_by_their_limits():
    text = histogram("Size", {2: 1, 4: 5}, "share", 0.05)
    assert "<title>0.1: 1</title>" in text and "<title>0.2: 5</title>" in text


def test_cells_are_as_dark_as_their_values():
    tree = ElementTree.fromstring(heat_map("Centres", [[0, 2], [4, 1]]))
    cells = [cell for cell in tree.iter("rect") if cell.get("class") == "cell"]
    placed = {(c.get("x"), c.get("y")): float(c.get("fill-opacity")) for c in cells}
    assert placed == {("0", "0"): 0, ("20", "0"): 0.5, ("0", "20"): 1, ("20", "20"): 0.25}
    assert "Nothing to draw." in heat_map("Centres", [[0]])
