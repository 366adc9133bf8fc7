"""LLaVA-1.5's format becomes SVIT's raw format again, as far as the information is still there.

Boxes return to fractions of each side, the instruction after a referring question and `<image>` go.
What the way there took cannot come back: `<st>` and `<ed>`, spaces around a text, the last digit of
some boxes, dialogues that were quarantined or left out by a limit.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from data_pipeline.common.boxes import shrink_text_from_square
from data_pipeline.common.dialogue import IMAGE_MARKER, Role, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.kinds import CONVERSATION, KINDS, REFERRING_QA
from data_pipeline.generation.raw_files import RawPicture, raw_to_json
from data_pipeline.instructions.joined import kind_by_text
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS, kind_by_id
from data_pipeline.instructions.pictures import Picture, read_pictures
from data_pipeline.instructions.raw import read_raw_rows


@dataclasses.dataclass(frozen=True)
class ReverseReport:
    """`dialogues` counts what was written by kind, `rejections` the rest by the reason."""

    dialogues: dict[str, int]
    rejections: dict[str, int]


def to_raw(
    llava: PathLike, sizes: PathLike, out: PathLike, prefix: str = "", max_bad: int | None = None
) -> ReverseReport:
    """Writes a LLaVA-1.5 file as a raw file for each kind into the folder `out`.

    The kind is the one in the row's id (`svit_referring_12`), else that of its text. A conversation
    of joined single questions comes apart again. Neighbouring rows about one picture share a raw
    row; rows that stand apart get one each. `prefix` is what stands before the paths in `sizes` (a
    scenes file or image_data.json). Rows that can't be read or whose picture is not in `sizes` go
    to `out/quarantine.jsonl`.
    """
    folder = epath.Path(out)
    by_path = {
        picture.image: (image_id, picture)
        for image_id, picture in read_pictures(sizes, prefix).items()
    }
    quarantine = Quarantine(folder / "quarantine.jsonl", max_bad)
    counts = dict.fromkeys(KINDS, 0)
    with contextlib.ExitStack() as stack:
        writers = {
            kind: _RawWriter(stack.enter_context(json_list_writer(folder / f"{kind}.json")))
            for kind in KINDS
        }
        for place, row in progress(read_raw_rows(llava), "convert back", unit="row"):
            try:
                kind, image_id, turns = _raw_dialogue(row, by_path)
            except BadRecordError as error:
                row_id = row.get("id", place) if isinstance(row, dict) else place
                quarantine.add(str(row_id), str(error))
                continue
            for dialogue in _apart(kind, turns):
                writers[kind].add(image_id, dialogue)
                counts[kind] += 1
        for writer in writers.values():
            writer.flush()
    quarantine.save()
    return ReverseReport(counts, quarantine.counts())


class _RawWriter:
    """Gathers neighbouring dialogues about one picture into one raw row."""

    def __init__(self, write: Callable[[Any], None]):
        self._write = write
        self._image_id = 0
        self._dialogues: list[tuple[Turn, ...]] = []

    def add(self, image_id: int, dialogue: tuple[Turn, ...]) -> None:
        if image_id != self._image_id:
            self.flush()
        self._image_id = image_id
        self._dialogues.append(dialogue)

    def flush(self) -> None:
        if self._dialogues:
            self._write(raw_to_json(RawPicture(self._image_id, tuple(self._dialogues))))
        self._dialogues = []


def _raw_dialogue(
    row: Any, by_path: Mapping[str, tuple[int, Picture]]
) -> tuple[str, int, tuple[Turn, ...]]:
    turns = _turns(row)
    image = row.get("image")
    if image not in by_path:
        raise BadRecordError(f"no_picture: the sizes file has no {image!r}; is the prefix right?")
    image_id, picture = by_path[image]
    kind = kind_by_id(row.get("id")) or kind_by_text(turns, ())
    if kind == REFERRING_QA:
        turns = tuple(_without_rules(turn, picture) for turn in turns)
    return kind, image_id, turns


def _turns(row: Any) -> tuple[Turn, ...]:
    """The turns without `<image>`. The text must alternate, the human first."""
    given = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(given, list) or not given or len(given) % 2:
        raise BadRecordError("malformed_row: expected a row with turns of human and gpt in pairs.")
    turns = []
    for place, turn in enumerate(given):
        role: Role = "gpt" if place % 2 else "human"
        text = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(text, str) or turn.get("from") != role:
            raise BadRecordError(f"malformed_row: turn {place + 1} is not a text from {role}.")
        if place == 0:
            text = text.replace(IMAGE_MARKER, "").strip()
        turns.append(Turn(role, text))
    return tuple(turns)


def _without_rules(turn: Turn, picture: Picture) -> Turn:
    text = turn.text
    if turn.role == "human":
        for instruction in BOX_INSTRUCTIONS:
            text = text.removesuffix(f" {instruction}")
    return Turn(turn.role, shrink_text_from_square(text, picture.width, picture.height))


def _apart(kind: str, turns: tuple[Turn, ...]) -> Iterator[tuple[Turn, ...]]:
    if kind == CONVERSATION:
        yield turns
    else:
        yield from (turns[start : start + 2] for start in range(0, len(turns), 2))
