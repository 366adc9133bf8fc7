"""Values out of JSON rows that strangers wrote: what doesn't fit is a ValueError that says why.

The reader that knows the row's place turns the ValueError into a quarantined record.
"""

import math
from pathlib import PurePosixPath
from typing import Any

Number = int | float
Corners = tuple[Number, Number, Number, Number]

_LARGEST = 2**53  # past it a float is no exact integer, and no id or pixel is that large


def value(row: Any, *keys: str) -> Any:
    """The first of `keys` that the row has."""
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {short(row)}")
    for key in keys:
        if key in row:
            return row[key]
    raise ValueError("missing key: " + " or ".join(f'"{key}"' for key in keys))


def number(row: Any, *keys: str) -> Number:
    return _number(value(row, *keys), keys[0])


def integer(row: Any, *keys: str) -> int:
    found = number(row, *keys)
    if found != int(found):
        raise ValueError(f'"{keys[0]}" is not an integer: {found!r}')
    return int(found)


def text(row: Any, *keys: str) -> str:
    """The text without outer white space; an empty one is refused."""
    found = value(row, *keys)
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f'"{keys[0]}" is not a text: {short(found)}')
    return found.strip()


def entries(row: Any, key: str) -> list[Any]:
    """The list under `key`."""
    found = value(row, key)
    if not isinstance(found, list):
        raise ValueError(f'"{key}" is not a list: {short(found)}')
    return found


def texts(found: Any, key: str) -> tuple[str, ...]:
    """The distinct non-empty texts of a list, in order; a single text and None count as lists."""
    listed = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ValueError(f'"{key}" is not a list of texts: {short(found)}')
    return tuple(dict.fromkeys(item.strip() for item in listed if item.strip()))


def four_numbers(row: Any, key: str) -> Corners:
    found = value(row, key)
    if not isinstance(found, list) or len(found) != 4:
        raise ValueError(f'"{key}" is not a list of four numbers: {short(found)}')
    a, b, c, d = (_number(item, key) for item in found)
    return a, b, c, d


def corners(row: Any) -> Corners:
    """x1, y1, x2, y2 of a row with x, y and a size, by either of Visual Genome's key names."""
    x, y = number(row, "x"), number(row, "y")
    return x, y, x + number(row, "w", "width"), y + number(row, "h", "height")


def relative_file(found: str, key: str) -> str:
    """The path, if it stays within the images folder."""
    path = PurePosixPath(found)
    if path.is_absolute() or ".." in path.parts or not path.name or "\\" in found:
        raise ValueError(f'"{key}" is not a path within the images folder: {short(found)}')
    return str(path)


def short(found: Any) -> str:
    told = repr(found)
    return told if len(told) <= 80 else told[:77] + "..."


def _number(found: Any, key: str) -> Number:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f'"{key}" is not a number: {short(found)}')
    if abs(found) > _LARGEST or not math.isfinite(found):
        raise ValueError(f'"{key}" is too large a number: {short(found)}')
    return found
