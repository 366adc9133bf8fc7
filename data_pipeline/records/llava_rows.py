"""Rows of LLaVA-format JSON files, checked: what becomes a dialogue, what is rejected and why."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from data_pipeline.common.dialogue import IMAGE_MARKER, Dialogue, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import stream_list

LLAVA_FORM = 'LLaVA\'s format, [{"id": ..., "image": ..., "conversations": [...]}, ...]'


@dataclasses.dataclass(frozen=True)
class LlavaRow:
    """One dialogue; `image` is its picture's path in the images folder, the paths one a line where
    it shows several, None for text alone."""

    image: str | None
    dialogue: Dialogue
    dropped_opening: bool = False


@dataclasses.dataclass(frozen=True)
class RejectedRow:
    """A row that is left out: its id (or its place in the file, where it has none) and why."""

    id: str
    reason: str
    file: str
    image: str | None = None


def read_llava_rows(path: PathLike) -> Iterator[LlavaRow | RejectedRow]:
    """Yields a file's rows in order, each either usable or rejected with its reason.

    The file is streamed: memory does not grow with it. Raises UserError where the file is absent,
    is not valid JSON or is not a list.
    """
    # The name alone, so that what is written does not depend on where the inputs lie.
    file_name = os.path.basename(os.fspath(path))
    for index, value in enumerate(stream_list(path, "instructions file", LLAVA_FORM)):
        try:
            yield parse_row(value)
        except BadRecordError as error:
            yield _rejected(value, str(error), f"{file_name}[{index}]", file_name)


def _rejected(value: Any, reason: str, place: str, file_name: str) -> RejectedRow:
    row = value if isinstance(value, dict) else {}
    image = row.get("image")
    if isinstance(image, list) and all(isinstance(path, str) for path in image):
        image = "\n".join(image)
    return RejectedRow(
        id=str(row.get("id", place)),
        reason=f"bad row: {place} {reason}",
        file=file_name,
        image=image if isinstance(image, str) else None,
    )


def parse_row(value: Any) -> LlavaRow:
    """The row as a dialogue: roles alternate from a human turn on, with at least one reply.

    With a path as its `image`, the first human turn holds one `<image>` and no other one any. With
    a list of paths, the human turns hold as many as it lists, in its order. Without, it is ordinary
    text, as LLaVA reads it. An opening turn by gpt is dropped, again as LLaVA does. Raises
    BadRecordError.
    """
    if not isinstance(value, dict):
        raise BadRecordError(f"is a {type(value).__name__}, not an object.")
    row_id = value.get("id")
    if not isinstance(row_id, str | int) or row_id == "":
        raise BadRecordError(f"has the id {row_id!r}; expected a string.")
    turns = _parse_turns(value.get("conversations"))
    opens_with_gpt = turns[0].role == "gpt"
    turns = turns[opens_with_gpt:]
    _check_order(turns)
    image = value.get("image")
    if isinstance(image, list):
        _check_paths(image)
        _check_several_markers(turns, len(image))
        image = "\n".join(image)
    elif image is not None:
        _check_paths([image])
        _check_markers(turns)
    return LlavaRow(image, Dialogue(str(row_id), turns), opens_with_gpt)


def _parse_turns(conversations: Any) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise BadRecordError('has no list of turns under "conversations".')
    turns = []
    for number, turn in enumerate(conversations, start=1):
        role = turn.get("from") if isinstance(turn, dict) else None
        text = turn.get("value") if isinstance(turn, dict) else None
        if role not in ("human", "gpt"):
            raise BadRecordError(f'has turn {number} from {role!r}; expected "human" or "gpt".')
        if not isinstance(text, str):
            raise BadRecordError(f'has turn {number} with the "value" {text!r}; expected a string.')
        turns.append(Turn(role, text))
    return tuple(turns)


def _check_order(turns: tuple[Turn, ...]) -> None:
    if len(turns) < 2:
        raise BadRecordError("has no human turn that is replied to.")
    for number, turn in enumerate(turns):
        if turn.role != ("human", "gpt")[number % 2]:
            raise BadRecordError(f"has two {turn.role} turns in a row; roles must alternate.")


def _check_paths(paths: list[Any]) -> None:
    if not paths:
        raise BadRecordError('has an empty list as its "image"; expected a path or several.')
    for image in paths:
        if not isinstance(image, str) or not image:
            raise BadRecordError(f'has the "image" {image!r}; expected a path or a list of paths.')
        path = PurePosixPath(image)
        # A line break is what parts the paths of several pictures.
        if path.is_absolute() or ".." in path.parts or any(c in image for c in "\\\n"):
            raise BadRecordError(
                f'has the "image" {image!r}; expected a path in the images folder.'
            )


def _check_markers(turns: tuple[Turn, ...]) -> None:
    first, *later = (turn.text.count(IMAGE_MARKER) for turn in turns if turn.role == "human")
    if first != 1:
        raise BadRecordError(f"has a picture, and {first} {IMAGE_MARKER} in its first human turn.")
    if any(later):
        raise BadRecordError(f"has {IMAGE_MARKER} in a human turn after the first.")


def _check_several_markers(turns: tuple[Turn, ...], listed: int) -> None:
    found = sum(turn.text.count(IMAGE_MARKER) for turn in turns if turn.role == "human")
    if found != listed:
        raise BadRecordError(
            f"lists {listed} pictures, and has {found} {IMAGE_MARKER} in its human turns."
        )
