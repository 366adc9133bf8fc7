"""All box arithmetic: pixels <-> fractions of the picture <-> fractions of the padded square.

SVIT's raw format divides each axis by its own side; LLaVA-1.5's format divides both axes by the
longer side, after the picture was padded to a centred square. Mixing the two corrupts grounding.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from data_pipeline.common.errors import BadRecordError

Number = int | float

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
BOX_PATTERN = re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]")


class NormalBox(NamedTuple):
    """A box in fractions (0..1) of a picture or of its padded square: top left, bottom right."""

    x1: float
    y1: float
    x2: float
    y2: float


def normalise_box(box: tuple[Number, Number, Number, Number], width: int, height: int) -> NormalBox:
    """The pixel box (x1, y1, x2, y2) in fractions of its own picture, to three decimals.

    Each axis is divided by its own side; what sticks out of the picture is cut off.
    Raises BadRecordError where the picture's sides are not positive.
    """
    _require_sides(width, height)
    x1, y1, x2, y2 = box
    return NormalBox(
        _fraction(x1, width), _fraction(y1, height), _fraction(x2, width), _fraction(y2, height)
    )


def format_box(box: NormalBox) -> str:
    """The text that stands for the box, as SVIT prints it: `[0.526, 0.152, 0.625, 0.7]`.

    Trailing zeros are dropped and the limits print as 0.0 and 1.0 (Python's own float text).
    """
    return f"[{', '.join(str(float(value)) for value in box)}]"


def find_boxes(text: str) -> list[NormalBox]:
    """The boxes in the text, in order: four bracketed numbers, each of them within 0..1.

    Says nothing about their sense: x1 may lie right of x2.
    """
    boxes = (_matched_box(match) for match in BOX_PATTERN.finditer(text))
    return [box for box in boxes if box is not None]


def expand_to_square(box: NormalBox, width: int, height: int) -> NormalBox:
    """The box in fractions of the picture padded to a centred square.

    SVIT's `tools/expand_to_square.py`: back to whole pixels, shift by the padding (floor of half
    the difference of the sides), divide by the longer side, three decimals.
    """
    _require_sides(width, height)
    side, left, top = _padding(width, height)
    x1, y1, x2, y2 = box
    return NormalBox(
        _fraction(round(x1 * width) + left, side),
        _fraction(round(y1 * height) + top, side),
        _fraction(round(x2 * width) + left, side),
        _fraction(round(y2 * height) + top, side),
    )


def shrink_from_square(box: NormalBox, width: int, height: int) -> NormalBox:
    """The inverse of `expand_to_square` up to the rounding; padding is cut off.

    There and back, a value moves by at most (0.5 + floor(0.5 + side / 2000)) / width + 0.0005 (the
    height's for y), where side is the longer one: half a pixel and half a digit by the roundings of
    the way there and of the result, and whole pixels only where the square's third decimal is
    coarser than a pixel, from a side of 1000 on.
    """
    _require_sides(width, height)
    side, left, top = _padding(width, height)
    x1, y1, x2, y2 = box
    return NormalBox(
        _fraction(round(x1 * side) - left, width),
        _fraction(round(y1 * side) - top, height),
        _fraction(round(x2 * side) - left, width),
        _fraction(round(y2 * side) - top, height),
    )


def expand_text_to_square(text: str, width: int, height: int) -> str:
    """The text with every box in it re-expressed on the padded square.

    One pass over the text: the published tool replaces box after box everywhere, so that a new
    box that equals a later old one is moved twice. Bracketed numbers outside 0..1 stay as they are.
    """
    return _with_boxes(text, lambda box: expand_to_square(box, width, height))


def shrink_text_from_square(text: str, width: int, height: int) -> str:
    """The text with every box in it, given on the padded square, as fractions of each side."""
    return _with_boxes(text, lambda box: shrink_from_square(box, width, height))


def _with_boxes(text: str, change: Callable[[NormalBox], NormalBox]) -> str:
    def changed(match: re.Match[str]) -> str:
        box = _matched_box(match)
        return match[0] if box is None else format_box(change(box))

    return BOX_PATTERN.sub(changed, text)


def intersection_over_union(a: NormalBox, b: NormalBox) -> float:
    """The shared area over the joint area, 0.0 to 1.0; 0.0 where a box has no area."""
    shared = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(
        0.0, min(a.y2, b.y2) - max(a.y1, b.y1)
    )
    joint = _area(a) + _area(b) - shared
    return shared / joint if shared > 0 else 0.0


def _area(box: NormalBox) -> float:
    return max(0.0, box.x2 - box.x1) * max(0.0, box.y2 - box.y1)


def _padding(width: int, height: int) -> tuple[int, int, int]:
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


def _fraction(pixels: Number, side: int) -> float:
    return round(min(max(pixels / side, 0.0), 1.0), 3)


def _matched_box(match: re.Match[str]) -> NormalBox | None:
    box = NormalBox(*map(float, match.groups()))
    return box if all(value <= 1 for value in box) else None


def _require_sides(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise BadRecordError(
            f"picture size: {width}x{height} pixels is not a picture; boxes cannot be placed in it."
        )
