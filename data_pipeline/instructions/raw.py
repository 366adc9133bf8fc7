"""SVIT's raw format, read and checked row by row (the released files are hundreds of megabytes)."""

import os
from collections.abc import Iterator
from typing import Any

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import stream_list
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.raw_files import RawPicture, write_raw

__all__ = ["RawPicture", "picture_of", "read_raw", "read_raw_rows", "turns_of", "write_raw"]

_FORM = 'SVIT\'s raw format, [{"image_id": ..., "conversations": [...]}, ...]'


def read_raw(path: PathLike, quarantine: Quarantine | None = None) -> Iterator[RawPicture]:
    """Yields the pictures of one raw file.

    A row or a conversation of another form goes to `quarantine`, and a picture that has no other
    conversation with it; without a quarantine it is a BadRecordError that names the row. Raises
    UserError where the file as a whole is no JSON list.
    """
    for place, row in read_raw_rows(path):
        bad = False
        try:
            image_id, conversations = picture_of(row)
        except BadRecordError as error:
            if quarantine is None:
                raise BadRecordError(f"{place}: {error}") from None
            quarantine.add(place, str(error))
            continue
        dialogues = []
        for item in conversations:
            try:
                dialogues.append(turns_of(item, image_id))
            except BadRecordError as error:
                if quarantine is None:
                    raise BadRecordError(f"{place}: {error}") from None
                quarantine.add(place, str(error), image_id=image_id)
                bad = True
        if dialogues or not bad:
            yield RawPicture(image_id, tuple(dialogues))


def read_raw_rows(path: PathLike) -> Iterator[tuple[str, Any]]:
    """Yields the values of a raw file's list as they stand there, each with its place."""
    name = os.path.basename(os.fspath(path))
    for number, row in enumerate(stream_list(path, "raw instructions", _FORM), start=1):
        yield f"{name} row {number}", row


def picture_of(row: Any) -> tuple[int, list[Any]]:
    """A row's image id and its conversations, unread. Raises BadRecordError."""
    if not isinstance(row, dict) or "image_id" not in row:
        raise BadRecordError('malformed_row: expected an object with the key "image_id".')
    image_id, conversations = row["image_id"], row.get("conversations")
    if isinstance(image_id, str) and image_id.isdecimal():
        image_id = int(image_id)
    if not isinstance(image_id, int) or isinstance(image_id, bool):
        raise BadRecordError(f"malformed_row: image_id is {image_id!r}, expected a whole number.")
    if not isinstance(conversations, list):
        raise BadRecordError(f'malformed_row: image {image_id} has no list "conversations".')
    return image_id, conversations


def turns_of(item: Any, image_id: int) -> tuple[Turn, ...]:
    """A conversation's turns, user and gpt in pairs. Raises BadRecordError."""
    content = item.get("content") if isinstance(item, dict) else None
    if not isinstance(content, list) or not content or len(content) % 2:
        raise BadRecordError(
            f'malformed_row: image {image_id} has a conversation whose "content" is not a list of '
            "user and gpt turns in pairs."
        )
    turns = []
    for place, turn in enumerate(content):
        wanted = "gpt" if place % 2 else "user"
        value = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(value, str) or turn.get("from") != wanted:
            raise BadRecordError(
                f"malformed_row: image {image_id} has {str(turn)[:60]!r} as turn {place + 1}; "
                f'expected {{"from": "{wanted}", "value": text}}.'
            )
        turns.append(Turn("gpt" if place % 2 else "human", value))
    return tuple(turns)
