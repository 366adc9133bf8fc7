"""What is wrong with the boxes in a text of LLaVA-1.5's format (fractions of the padded square)."""

import re
from collections.abc import Iterator

from data_pipeline.common.boxes import NormalBox

Size = tuple[int, int]
"""A picture's width and height in pixels."""

ROUNDING = 0.001
"""How far a box of the picture may lie outside it, beside one pixel: two roundings to three
decimals. The pixel is for others who round the padding, or their boxes' pixels, in another way."""

# A bracket of numbers, closed or not. Fewer than two numbers, or whole ones other than four, are
# something else: a footnote, a list.
_BRACKET = re.compile(r"\[([\d\s.,;-]*)(\]?)")
_NUMBER = re.compile(r"\d*\.?\d+")


def bracketed_boxes(text: str) -> Iterator[tuple[str, list[float] | None]]:
    """Yields what looks like a box, as it is written, and its four numbers; None if malformed."""
    for match in _BRACKET.finditer(text):
        inner, closed = match.groups()
        numbers = _NUMBER.findall(inner)
        if len(numbers) != 4 and ("." not in inner or len(numbers) < 2):
            continue
        yield match[0].strip(), _four_numbers(inner) if closed else None


def _four_numbers(inner: str) -> list[float] | None:
    try:
        values = [float(part) for part in inner.split(",")]
    except ValueError:
        return None
    return values if len(values) == 4 else None


def box_defect(values: list[float] | None, size: Size | None) -> str | None:
    """The name of what is wrong with a box (a key of DEFECTS), None where nothing is.

    Without the picture's size it is not judged where on the padded square the box lies.
    """
    if values is None:
        return "malformed_box"
    if not all(0 <= value <= 1 for value in values):
        return "box_out_of_range"
    x1, y1, x2, y2 = values
    if x2 <= x1 or y2 <= y1:
        return "box_without_area"
    if size is None:
        return None
    left, top, right, bottom = picture_region(*size)
    if x2 <= left or x1 >= right or y2 <= top or y1 >= bottom:
        return "box_in_padding"
    outside = max(left - x1, top - y1, x2 - right, y2 - bottom)
    return "box_reaches_padding" if outside > ROUNDING + 1 / max(size) else None


def picture_region(width: int, height: int) -> NormalBox:
    """Where the picture stands on its padded square, in fractions of the square's side."""
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return NormalBox(left / side, top / side, (left + width) / side, (top + height) / side)
