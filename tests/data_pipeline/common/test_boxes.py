"""Box arithmetic against the published vectors and plain geometry."""

import pytest

from data_pipeline.common.boxes import (
    NormalBox,
    expand_text_to_square,
    expand_to_square,
    find_boxes,
    format_box,
    intersection_over_union,
    normalise_box,
    shrink_from_square,
)
from data_pipeline.common.errors import BadRecordError

CLOCK = NormalBox(0.526, 0.152, 0.625, 0.717)
CLOCK_ON_SQUARE = NormalBox(0.526, 0.239, 0.625, 0.662)


def test_pixels_become_the_published_fractions() -> None:
    assert normalise_box((421, 91, 500, 430), 800, 600) == CLOCK


def test_boxes_that_stick_out_are_cut_to_the_picture() -> None:
    assert normalise_box((-5, 10, 120, 200), 100, 100) == NormalBox(0.0, 0.1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (CLOCK, "[0.526, 0.152, 0.625, 0.717]"),
        (NormalBox(0.16, 0.341, 0.34, 0.571), "[0.16, 0.341, 0.34, 0.571]"),
        (NormalBox(0, 0.0, 1, 1.0), "[0.0, 0.0, 1.0, 1.0]"),
    ],
)
def test_text_drops_trailing_zeros_and_keeps_the_limits(box: NormalBox, text: str) -> None:
    assert format_box(box) == text
    assert find_boxes(f"a man {text}.") == [box]


def test_expansion_follows_the_published_vector() -> None:
    assert expand_to_square(CLOCK, 800, 600) == CLOCK_ON_SQUARE


def test_expansion_of_an_upright_picture_shifts_the_other_axis() -> None:
    # 333x500: the padding left of the picture is floor(167 / 2) = 83 pixels.
    assert expand_to_square(NormalBox(0.0, 0.0, 1.0, 1.0), 333, 500) == NormalBox(
        83 / 500, 0.0, 416 / 500, 1.0
    )


def test_a_square_picture_keeps_boxes_that_lie_on_pixels() -> None:
    box = normalise_box((3, 17, 40, 63), 64, 64)
    assert expand_to_square(box, 64, 64) == box


@pytest.mark.parametrize(("width", "height"), [(800, 600), (333, 500), (64, 64), (96, 64)])
def test_shrinking_undoes_expanding(width: int, height: int) -> None:
    box = normalise_box((5, 7, 41, 60), width, height)
    there = expand_to_square(box, width, height)
    assert shrink_from_square(there, width, height) == pytest.approx(box, abs=1.5e-3)


def test_each_box_in_a_text_moves_exactly_once() -> None:
    # The first box's image is the text of the second one: chained replacing would move it twice.
    second_on_square = expand_to_square(CLOCK_ON_SQUARE, 800, 600)
    text = f"a {format_box(CLOCK)}, b {format_box(CLOCK_ON_SQUARE)}, a {format_box(CLOCK)}"
    assert expand_text_to_square(text, 800, 600) == (
        f"a {format_box(CLOCK_ON_SQUARE)}, b {format_box(second_on_square)}, "
        f"a {format_box(CLOCK_ON_SQUARE)}"
    )


def test_bracketed_numbers_that_are_no_fractions_stay() -> None:
    text = "plates [1, 2, 3, 4] and [0.1, 0.2, 0.3] and [0.1.2, 0, 0, 1]"
    assert expand_text_to_square(text, 800, 600) == text
    assert find_boxes(text) == []


def test_intersection_over_union() -> None:
    left, right = NormalBox(0.0, 0.0, 0.5, 1.0), NormalBox(0.25, 0.0, 0.75, 1.0)
    assert intersection_over_union(left, right) == pytest.approx(1 / 3)
    assert intersection_over_union(left, left) == pytest.approx(1.0)
    assert intersection_over_union(left, NormalBox(0.5, 0.0, 1.0, 1.0)) == 0.0
    assert intersection_over_union(left, NormalBox(0.4, 0.4, 0.2, 0.2)) == 0.0
    empty = NormalBox(0.2, 0.2, 0.2, 0.2)
    assert intersection_over_union(empty, empty) == 0.0


def test_a_picture_without_area_is_a_bad_record() -> None:
    with pytest.raises(BadRecordError, match="0x600"):
        normalise_box((0, 0, 1, 1), 0, 600)
