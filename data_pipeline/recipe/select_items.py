"""What is selected from: the rows of LLaVA-format files, or each question with its answer."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import stream_list
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.kinds import KINDS
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS, ID_STEMS
from data_pipeline.records.llava_rows import LLAVA_FORM, LlavaRow, parse_row

UNITS = ("row", "qa")
_KIND_OF_STEM = {stem: kind for kind, stem in ID_STEMS.items()}


@dataclasses.dataclass(frozen=True)
class Source:
    """A LLaVA-format file; all its rows are of `kind`, or each is of the kind that its id tells."""

    path: PathLike
    kind: str | None = None


def parse_source(text: str) -> Source:
    """A file as the command line names it: `FILE`, or `KIND=FILE`."""
    kind, _, path = text.partition("=")
    return Source(path, kind) if kind in KINDS and path else Source(text)


@dataclasses.dataclass(frozen=True)
class Item:
    """A dialogue that is selected or not; `value` is the row to write if it is."""

    kind: str
    row: LlavaRow
    value: dict[str, Any]

    @property
    def questions(self) -> list[str]:
        """What is asked, without the marker of the picture and the fixed instruction for boxes."""
        texts = [turn.text for turn in self.row.dialogue.turns[::2]]
        texts[0] = texts[0].replace(IMAGE_MARKER, "", 1)
        return [_without_instruction(text.strip()) for text in texts]

    @property
    def answers(self) -> list[str]:
        return [turn.text for turn in self.row.dialogue.turns[1::2]]


def read_items(
    sources: Sequence[Source], unit: str = "row", quarantine: Quarantine | None = None
) -> Iterator[Item]:
    """Yields the items of all files, in their order.

    The unit `qa` makes a row of its own of each question and its answer: its id is the row's with
    the pair's number after it, its picture the row's. Unusable rows go to `quarantine`. Raises
    UserError where a file is absent or no JSON list.
    """
    for source in sources:
        name = os.path.basename(os.fspath(source.path))
        values = stream_list(source.path, "instructions file", LLAVA_FORM)
        for index, value in enumerate(values):
            try:
                item = _item(value, source.kind)
            except BadRecordError as error:
                if quarantine is not None:
                    row_id = value.get("id") if isinstance(value, dict) else None
                    place = f"{name}[{index}]"
                    quarantine.add(str(row_id or place), f"bad row: {place} {error}", file=name)
                continue
            if unit == "qa":
                yield from _pairs(item)
            else:
                yield item


def _item(value: Any, kind: str | None) -> Item:
    row = parse_row(value)
    if isinstance(value.get("image"), list):
        raise BadRecordError('has a list as its "image"; a selection is of rows with one picture.')
    if kind is None:
        stem = row.dialogue.id.rpartition("_")[0]
        kind = _KIND_OF_STEM.get(stem)
        if kind is None:
            raise BadRecordError(
                f"has the id {row.dialogue.id!r}, which tells no kind; expected one that starts "
                f"with {', '.join(_KIND_OF_STEM)}, or a file given as KIND=FILE."
            )
    return Item(kind, row, value)


def _pairs(item: Item) -> Iterator[Item]:
    row_id, image, turns = item.row.dialogue.id, item.row.image, item.row.dialogue.turns
    for number in range(len(turns) // 2):
        pair = turns[2 * number : 2 * number + 2]
        if number and image is not None:
            pair = (Turn("human", f"{IMAGE_MARKER}\n{pair[0].text}"), pair[1])
        value = {
            **item.value,
            "id": f"{row_id}_{number}",
            "conversations": [{"from": turn.role, "value": turn.text} for turn in pair],
        }
        yield Item(item.kind, parse_row(value), value)


def _without_instruction(question: str) -> str:
    for instruction in BOX_INSTRUCTIONS:
        if question.endswith(instruction):
            return question.removesuffix(instruction).rstrip()
    return question
