"""SVIT's raw format, written."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import json_list_writer

RAW_ROLES = {"human": "user", "gpt": "gpt"}


@dataclasses.dataclass(frozen=True)
class RawPicture:
    """One picture's dialogues of one kind: conversations, or single question-answer pairs."""

    image_id: int
    dialogues: tuple[tuple[Turn, ...], ...]


def raw_to_json(picture: RawPicture) -> dict[str, Any]:
    """The row as SVIT releases it; its roles are called `user` and `gpt`."""
    return {
        "image_id": picture.image_id,
        "conversations": [
            {"content": [{"from": RAW_ROLES[turn.role], "value": turn.text} for turn in turns]}
            for turns in picture.dialogues
        ],
    }


def write_raw(path: PathLike, pictures: Iterable[RawPicture]) -> int:
    """Writes one raw file and returns the number of pictures in it."""
    count = 0
    with json_list_writer(path) as write:
        for picture in pictures:
            write(raw_to_json(picture))
            count += 1
    return count
