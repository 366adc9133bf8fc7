"""SVIT's raw format, and long JSON lists written row by row."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.files import PathLike, open_atomic

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


@contextlib.contextmanager
def json_list_writer(path: PathLike) -> Iterator[Callable[[Any], None]]:
    """A function that appends a row to the JSON list `path`, which appears when the block ends."""
    with open_atomic(path) as file:
        before = "[\n"

        def write(row: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(row, ensure_ascii=False))
            before = ",\n"

        yield write
        file.write("[]\n" if before == "[\n" else "\n]\n")


def write_raw(path: PathLike, pictures: Iterable[RawPicture]) -> int:
    """Writes one raw file and returns the number of pictures in it."""
    count = 0
    with json_list_writer(path) as write:
        for picture in pictures:
            write(raw_to_json(picture))
            count += 1
    return count
