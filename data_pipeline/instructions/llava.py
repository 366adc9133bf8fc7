"""SVIT's raw format becomes LLaVA-1.5's, by the five rules of the dataset's card.

A random one of three instructions follows each referring question; `<st>` and `<ed>` go; boxes move
to the padded square; `<image>` opens the first question; the picture's path follows LLaVA's layout.
"""

import dataclasses
import random
from collections.abc import Collection, Iterator, Mapping, Sequence

from etils import epath

from data_pipeline.common.boxes import expand_text_to_square
from data_pipeline.common.dialogue import IMAGE_MARKER, Dialogue, Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.checks import box_fault
from data_pipeline.generation.kinds import (
    COMPLEX_REASONING,
    CONVERSATION,
    DETAIL_DESCRIPTION,
    KINDS,
    REFERRING_QA,
    require_kinds,
)
from data_pipeline.generation.raw_files import RawPicture
from data_pipeline.instructions.joined import by_kind
from data_pipeline.instructions.pictures import Picture, read_pictures
from data_pipeline.instructions.raw import read_raw
from data_pipeline.instructions.rows import llava_row, quarantine_beside

BOX_INSTRUCTIONS = (
    "Provide the bounding boxes of the mentioned objects.",
    "Include the coordinates for each mentioned object.",
    "Locate the objects with their coordinates.",
)
ID_STEMS = {
    CONVERSATION: "svit_conversation",
    COMPLEX_REASONING: "svit_complex",
    DETAIL_DESCRIPTION: "svit_detail",
    REFERRING_QA: "svit_referring",
}


def kind_by_id(row_id: object) -> str | None:
    """The kind that the id of a converted row names (`svit_referring_12`); None for other ids."""
    stem = str(row_id).rpartition("_")[0]
    return next((kind for kind, known in ID_STEMS.items() if known == stem), None)


@dataclasses.dataclass(frozen=True)
class ConvertReport:
    """`rows` counts the written rows by kind, `rejections` the quarantined ones by the reason."""

    rows: dict[str, int]
    rejections: dict[str, int]


def convert(
    raw: PathLike,
    sizes: PathLike,
    out: PathLike,
    kinds: Collection[str] = KINDS,
    seed: int = 0,
    prefix: str = "",
    limits: Mapping[str, int] | None = None,
    merge: Collection[str] = (),
    max_bad: int | None = None,
    detail_questions: PathLike | None = None,
) -> ConvertReport:
    """Writes raw instructions of `kinds` as one LLaVA-1.5 file, in the raw files' order.

    `raw` is a folder with a file for each kind, one of these files, or one in which the kinds are
    joined: they are then told apart by their text (`kind_by_text`), descriptions by the questions
    in `detail_questions`, a text file with one a line. `sizes` is a scenes file or Visual Genome's
    image_data.json.

    `limits` gives the most dialogues that are kept of a picture, by kind (a random choice by
    `seed`). Kinds in `merge` have single questions: those of one picture, after the limit, become
    one conversation. `prefix` stands before the pictures' paths. Ids number the dialogues of
    the raw file, so that they don't depend on limits. Unusable dialogues go to
    `<out's stem>.quarantine.jsonl`; more than `max_bad` of them are a UserError.
    """
    kinds = require_kinds(kinds)
    limits = dict(limits or {})
    _check_choices(limits, merge)
    files = _raw_files(raw, kinds)
    asked = _detail_questions(detail_questions)
    pictures = read_pictures(sizes, prefix)
    quarantine = quarantine_beside(out, max_bad)
    rows = dict.fromkeys(kinds, 0)
    numbers = dict.fromkeys(KINDS, 0)
    with json_list_writer(out) as write:
        for kind, part in _parts(files, asked, quarantine):
            first = numbers[kind]
            numbers[kind] += len(part.dialogues)
            if kind not in rows:
                continue
            picture = pictures.get(part.image_id)
            if picture is None:
                quarantine.add(f"{kind}/{part.image_id}", f"no_picture: {sizes} has no such image.")
                continue
            usable = []
            for place, turns in _chosen(kind, part, limits, seed):
                row_id = f"{ID_STEMS[kind]}_{first + place}"
                try:
                    usable.append(Dialogue(row_id, _convert(kind, turns, picture)))
                except BadRecordError as error:
                    quarantine.add(row_id, str(error), image_id=part.image_id)
            for dialogue in _merged(usable) if kind in merge else usable:
                turns = dialogue.turns
                if kind == REFERRING_QA:
                    turns = _with_instructions(dialogue, seed)
                write(llava_row(dialogue.id, picture.image, turns))
                rows[kind] += 1
    quarantine.save()
    return ConvertReport(rows, quarantine.counts())


def _raw_files(raw: PathLike, kinds: Collection[str]) -> dict[str, epath.Path]:
    """The files by kind; one in which all are joined stands under an empty name."""
    path = epath.Path(raw)
    if path.exists() and not path.is_dir():
        return {path.stem if path.stem in KINDS else "": path}
    return {kind: require_file(path / f"{kind}.json", f"raw {kind} file") for kind in kinds}


def _detail_questions(path: PathLike | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    text = require_file(path, "questions for descriptions").read_text()
    return frozenset(line.strip() for line in text.splitlines() if line.strip())


def _parts(
    files: Mapping[str, epath.Path], detail_questions: Collection[str], quarantine: Quarantine
) -> Iterator[tuple[str, RawPicture]]:
    for kind, path in files.items():
        pictures = progress(read_raw(path, quarantine), f"convert {path.name}", unit="picture")
        for picture in pictures:
            yield from [(kind, picture)] if kind else by_kind(picture, detail_questions)


def _check_choices(limits: Mapping[str, int], merge: Collection[str]) -> None:
    for kinds in (limits, merge):
        if kinds:
            require_kinds(tuple(kinds))
    for kind, limit in limits.items():
        if limit < 1:
            raise UserError(
                f"the limit for {kind} is {limit}, expected 1 or more; leave the kind out instead."
            )
    if CONVERSATION in merge:
        raise UserError("conversation cannot be merged: it has many turns; merge the other kinds.")


def _chosen(
    kind: str, raw: RawPicture, limits: Mapping[str, int], seed: int
) -> list[tuple[int, tuple[Turn, ...]]]:
    """The kept dialogues with their places in the raw row."""
    places: Sequence[int] = range(len(raw.dialogues))
    limit = limits.get(kind, len(places))
    if limit < len(places):
        rng = random.Random(f"{seed}/{kind}/{raw.image_id}/limit")
        places = sorted(rng.sample(places, limit))
    return [(place, raw.dialogues[place]) for place in places]


def _convert(kind: str, turns: Sequence[Turn], picture: Picture) -> tuple[Turn, ...]:
    converted = []
    for turn in turns:
        text = turn.text.strip()
        if kind == REFERRING_QA:
            fault = box_fault(text)
            if fault is not None:
                raise BadRecordError(fault)
            text = text.replace("<st>", "").replace("<ed>", "")
            text = expand_text_to_square(text, picture.width, picture.height)
        if not text:
            raise BadRecordError(f"empty_text: a turn of {turn.role} has no text.")
        if IMAGE_MARKER in text:
            raise BadRecordError(f"image_marker: the text holds {IMAGE_MARKER} itself.")
        if turn.role == "gpt" and "message is empty" in text.lower():
            raise BadRecordError("message_is_empty: the teacher had seen no scene.")
        converted.append(Turn(turn.role, text))
    return tuple(converted)


def _merged(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    if not dialogues:
        return []
    return [Dialogue(dialogues[0].id, tuple(turn for d in dialogues for turn in d.turns))]


def _with_instructions(dialogue: Dialogue, seed: int) -> tuple[Turn, ...]:
    rng = random.Random(f"{seed}/{dialogue.id}/instruction")
    return tuple(
        Turn(turn.role, f"{turn.text} {rng.choice(BOX_INSTRUCTIONS)}")
        if turn.role == "human"
        else turn
        for turn in dialogue.turns
    )
