"""Escaping, data URIs, tables and charts of the shared HTML helpers."""

import base64
import io
import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.html import (
    Html,
    Series,
    data_uri,
    element,
    fragment,
    line_chart,
    nice_ticks,
    page,
    table,
)


def picture_bytes(size: tuple[int, int], kind: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(target, kind)
    return target.getvalue()


def test_text_and_attributes_are_escaped_and_markup_is_kept() -> None:
    made = element("p", "<b>", Html("<i>ok</i>"), None, 3, title='"&', class_="x", hidden=True)
    assert made == '<p title="&quot;&amp;" class="x" hidden>&lt;b&gt;<i>ok</i>3</p>'
    assert element("img", src="a", alt=None) == '<img src="a">'
    assert fragment("a<", element("br")) == "a&lt;<br>"


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="<>&\"' ab/=\u00e9\u4e2d", max_size=30))
def test_any_text_survives_a_parser(text: str) -> None:
    tree = ElementTree.fromstring(element("p", text, title=text))
    assert (tree.text or "") == text
    assert tree.get("title") == text


def test_a_page_is_whole_and_names_no_other_resource() -> None:
    text = page("A & B", element("h1", "Hello"), description="short")
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "<title>A &amp; B</title>" in text and "<h1>Hello</h1>" in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert not re.search(r"https?://|<script|url\(", text)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_data_uri_holds_the_very_bytes(kind: str, tmp_path: Path) -> None:
    data = picture_bytes((6, 4), kind)
    (tmp_path / "picture").write_bytes(data)
    uri = data_uri(tmp_path / "picture")
    assert uri == data_uri(data)
    head, body = uri.split(",")
    assert head == f"data:image/{kind.lower()};base64"
    assert base64.b64decode(body) == data


def test_a_large_picture_is_scaled_down_and_a_small_one_is_not() -> None:
    body = data_uri(picture_bytes((300, 150), "PNG"), longest_side=100).split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (100, 50)
    small = picture_bytes((30, 15), "PNG")
    assert data_uri(small, longest_side=100) == data_uri(small)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecordError, match="not a JPEG"):
        data_uri(b"hello")
    with pytest.raises(BadRecordError, match="cannot be decoded"):
        data_uri(picture_bytes((30, 30), "PNG")[:40], longest_side=10)
    with pytest.raises(BadRecordError, match=r"gone\.png"):
        data_uri(tmp_path / "gone.png")


def test_a_table_has_headers_on_both_sides() -> None:
    tree = ElementTree.fromstring(table(("Name", "n"), [("a<b", 1)], caption="Few", numeric=[1]))
    assert tree.get("aria-label") == "Few"
    assert [cell.get("scope") for cell in tree.iter("th")] == ["col", "col", "row"]
    assert next(tree.iter("td")).get("class") == "number"
    assert [cell.text for cell in tree.iter("th")] == ["Name", "n", "a<b"]


def test_a_line_runs_from_corner_to_corner() -> None:
    figure = line_chart("T", [Series("s", [(0, 0.0), (10, 1.0)])], "step", "loss")
    path = next(p for p in ElementTree.fromstring(figure).iter("path")).get("d")
    left, floor, right, top = map(float, re.findall(r"[\d.]+", path or ""))
    assert (left, right) == (52.0, 426.0)
    assert floor == 200.0 and top == 12.0
    assert "ends at 1" in figure and "<span>" in figure


def test_points_that_are_not_finite_break_the_line() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 3.0)]
    figure = line_chart("T", [Series("s", points)], "x", "y")
    path = next(p for p in ElementTree.fromstring(figure).iter("path")).get("d") or ""
    assert (path.count("M"), path.count("L")) == (3, 1)
    assert "nan" not in path
    assert "No points." in line_chart("T", [Series("s", [])], "x", "y")
    assert "<path" in line_chart("T", [Series("s", [(0, 0.0)])], "x", "y")


def test_long_lines_are_thinned_to_means() -> None:
    points = [(x, float(x % 2)) for x in range(2400)]
    figure = line_chart("T", [Series("s", points)], "x", "y", y_range=(0, 1))
    path = next(p for p in ElementTree.fromstring(figure).iter("path")).get("d") or ""
    assert path.count("L") == 239
    assert set(re.findall(r" ([\d.]+)", path)) == {"106.0"}


@settings(max_examples=80, deadline=None)
@given(
    low=st.floats(-1e6, 1e6, allow_nan=False),
    span=st.floats(1e-3, 1e6, allow_nan=False),
)
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-3)
