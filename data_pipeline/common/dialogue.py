"""Dialogue: an ordered exchange about a picture (or about none), whatever file it came from."""

import dataclasses
from typing import Literal

IMAGE_MARKER = "<image>"

Role = Literal["human", "gpt"]


@dataclasses.dataclass(frozen=True)
class Turn:
    role: Role
    text: str


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """`turns` alternate, the human first; `<image>` in a human turn marks a picture's place."""

    id: str
    turns: tuple[Turn, ...]


def picture_names(image_id: str | None) -> tuple[str, ...]:
    """The pictures that a record's `image_id` names: their paths stand in it one a line."""
    return tuple(image_id.split("\n")) if image_id else ()
