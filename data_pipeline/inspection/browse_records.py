"""What the page to browse with is given of a record: texts, and boxes placed on its picture."""

import random
from collections.abc import Iterator
from typing import Any

from data_pipeline.common.boxes import BOX_PATTERN, NormalBox, find_boxes, shrink_from_square
from data_pipeline.common.dialogue import Dialogue, picture_names
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.html import data_uri
from data_pipeline.common.progress import progress
from data_pipeline.images.transforms import decode_picture
from data_pipeline.inspection.box_checks import Size
from data_pipeline.inspection.dialogues import kind_of
from data_pipeline.inspection.pictures import header_size, only_size
from data_pipeline.records.example import Record
from data_pipeline.records.source import RecordSource


def shown_record(index: int, record: Record) -> dict[str, Any]:
    """The record as the page's script reads it, without its pictures.

    A turn is a list of pieces: text, or {"box": n, "text": "[...]"}, where n is the box's place in
    `boxes`: left, top, width and height in fractions of the picture. Equal boxes of a record are
    one. Boxes of a record without a picture or with several, or outside it, stay text.
    """
    sizes = [header_size(image) for image in record.images]
    size = only_size(sizes)
    boxes: dict[NormalBox, int] = {}
    dialogues = [_shown_dialogue(dialogue, size, boxes) for dialogue in record.dialogues]
    return {
        "index": index,
        "images": list(picture_names(record.image_id)),
        "sizes": [size and list(size) for size in sizes],
        "dialogues": dialogues,
        "boxes": [
            [round(side, 3) for side in (box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1)]
            for box in boxes
        ],
    }


def _shown_dialogue(
    dialogue: Dialogue, size: Size | None, boxes: dict[NormalBox, int]
) -> dict[str, Any]:
    return {
        "id": dialogue.id,
        "kind": kind_of(dialogue.id),
        "rounds": sum(turn.role == "gpt" for turn in dialogue.turns),
        "turns": [
            {"role": turn.role, "pieces": list(_pieces(turn.text, size, boxes))}
            for turn in dialogue.turns
        ],
    }


def _pieces(text: str, size: Size | None, boxes: dict[NormalBox, int]) -> Iterator[Any]:
    end = 0
    for match in BOX_PATTERN.finditer(text):
        box = _on_picture(match[0], size)
        if box is None:
            continue
        if match.start() > end:
            yield text[end : match.start()]
        yield {"box": boxes.setdefault(box, len(boxes)), "text": match[0]}
        end = match.end()
    if end < len(text):
        yield text[end:]


def _on_picture(written: str, size: Size | None) -> NormalBox | None:
    """The box in fractions of the picture; None where nothing of it can be drawn there."""
    found = find_boxes(written)
    if not found or size is None:
        return None
    box = shrink_from_square(found[0], *size)
    return box if box.x1 < box.x2 and box.y1 < box.y2 else None


def record_at(source: RecordSource, index: int) -> tuple[dict[str, Any], Record | None]:
    """The record as the page reads it and as it is; one that can't be read says why in `fault`."""
    try:
        record = source[index]
    except BadRecordError as error:
        return {"index": index, "fault": str(error)}, None
    return shown_record(index, record), record


def sampled_records(
    source: RecordSource, limit: int, seed: int, longest_side: int
) -> list[dict[str, Any]]:
    """Up to `limit` records, drawn by `seed`, in their order, each with its pictures as data URIs.

    Pictures larger than `longest_side` pixels are scaled down; None stands for a broken one.
    """
    chosen = sorted(random.Random(seed).sample(range(len(source)), min(limit, len(source))))
    shown = []
    for index in progress(chosen, "reading records", unit="record"):
        row, record = record_at(source, index)
        if record is not None:
            row["pictures"] = [_picture_uri(image, longest_side) for image in record.images]
        shown.append(row)
    return shown


def _picture_uri(image: bytes, longest_side: int) -> str | None:
    try:
        decode_picture(image, "of a record")
    except BadRecordError:
        return None
    return data_uri(image, longest_side)
