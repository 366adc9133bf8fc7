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
