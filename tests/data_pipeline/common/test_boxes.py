"""Box arithmetic against the published vectors and plain geometry."""

import contextlib
import math
import random
import re

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
    shrink_text_from_square,
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


def published_box(old: str, width: int, height: int) -> str:
    """One box through the arithmetic of SVIT's tool, as its description gives it; ValueError where
    it is not four numbers."""
    x1, y1, x2, y2 = (float(number) for number in old[1:-1].split(", "))
    corners = [round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)]
    if width > height:
        corners[1] += (width - height) // 2
        corners[3] += (width - height) // 2
    if height > width:
        corners[0] += (height - width) // 2
        corners[2] += (height - width) // 2
    new = [round(corner / max(width, height), 3) for corner in corners]
    return f"[{new[0]}, {new[1]}, {new[2]}, {new[3]}]"


PUBLISHED_PATTERN = r"\[[0-9.]+, [0-9.]+, [0-9.]+, [0-9.]+\]"


def published_tool(text: str, width: int, height: int) -> str:
    """The whole tool: each match in turn is replaced wherever its text stands; errors pass."""
    for old in re.findall(PUBLISHED_PATTERN, text):
        with contextlib.suppress(ValueError):
            text = text.replace(old, published_box(old, width, height))
    return text


def random_text(rng: random.Random, boxes: int) -> str:
    """Boxes as SVIT prints them, on a coarse grid now and then, so that they collide."""
    digits = rng.choice((1, 2, 3))
    parts = []
    for number in range(boxes):
        xs = sorted(round(rng.random(), digits) for _ in range(2))
        ys = sorted(round(rng.random(), digits) for _ in range(2))
        parts.append(f"<st>thing {number}<ed> [{xs[0]}, {ys[0]}, {xs[1]}, {ys[1]}]")
    return " and ".join(parts) + "."


def chained(text: str, width: int, height: int) -> bool:
    """Whether a box's new text is the text of another box of the same text."""
    olds = re.findall(PUBLISHED_PATTERN, text)
    return any(
        new in olds and new != old for old in olds for new in [published_box(old, width, height)]
    )


def test_ten_thousand_boxes_move_as_in_the_published_tool() -> None:
    rng = random.Random(0)
    boxes = chains = 0
    while boxes < 10_000:
        width, height = rng.randint(1, 2000), rng.randint(1, 2000)
        text = random_text(rng, rng.randint(1, 6))
        boxes += text.count("<st>")
        ours = expand_text_to_square(text, width, height)
        pieces = re.split(f"({PUBLISHED_PATTERN})", text)
        pieces[1::2] = [published_box(old, width, height) for old in pieces[1::2]]
        assert ours == "".join(pieces)
        if chained(text, width, height):
            chains += 1
        else:
            assert ours == published_tool(text, width, height)
    assert chains < 20


def test_the_published_tool_moves_a_box_twice_and_ours_does_not() -> None:
    second = published_box("[0.526, 0.239, 0.625, 0.662]", 800, 600)
    text = f"{format_box(CLOCK)} and {format_box(CLOCK_ON_SQUARE)}"
    assert published_tool(text, 800, 600) == f"{second} and {second}"
    assert expand_text_to_square(text, 800, 600) == f"{format_box(CLOCK_ON_SQUARE)} and {second}"


def test_the_published_tool_leaves_a_broken_box_and_says_nothing() -> None:
    # Ours leaves the text too, but `svit data convert` quarantines the dialogue before.
    text = "a [0.5.2, 0.1, 0.7, 0.9] of the picture's own sides"
    assert published_tool(text, 800, 600) == text
    assert expand_text_to_square(text, 800, 600) == text


def test_the_published_tool_does_not_see_a_box_without_spaces() -> None:
    text = "a [0.526,0.152,0.625,0.717]"
    assert published_tool(text, 800, 600) == text
    assert expand_text_to_square(text, 800, 600) == f"a {format_box(CLOCK_ON_SQUARE)}"


def test_the_way_back_keeps_its_bound() -> None:
    rng = random.Random(1)
    closest = 0.0
    for _ in range(5000):
        width, height = rng.randint(20, 4000), rng.randint(20, 4000)
        side = max(width, height)
        box = NormalBox(*(round(rng.random(), 3) for _ in range(4)))
        back = shrink_from_square(expand_to_square(box, width, height), width, height)
        for place, (there, here) in enumerate(zip(box, back, strict=True)):
            sides = width, height
            bound = (0.5 + math.floor(0.5 + side / 2000)) / sides[place % 2] + 0.0005
            assert abs(there - here) <= bound + 1e-9
            closest = max(closest, abs(there - here) / bound)
    assert closest > 0.9


def test_pixels_come_back_exactly_below_a_thousand() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        width, height = rng.randint(1, 999), rng.randint(1, 999)
        pixels = (rng.randint(0, width), rng.randint(0, height)) * 2
        box = normalise_box(pixels, width, height)
        there = f"see {format_box(expand_to_square(box, width, height))}"
        (back,) = find_boxes(shrink_text_from_square(there, width, height))
        sides = (width, height, width, height)
        moved = [round(value * side) for value, side in zip(box, sides, strict=True)]
        assert [round(value * side) for value, side in zip(back, sides, strict=True)] == moved
        assert moved == list(pixels)
