"""Dialogues one after another, from LLaVA-format files or from shards, and what each is like."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etils import epath

from data_pipeline.common.dialogue import IMAGE_MARKER, Dialogue, picture_names
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress
from data_pipeline.inspection.box_checks import Size
from data_pipeline.inspection.pictures import header_size
from data_pipeline.records.llava_rows import LlavaRow, read_llava_rows
from data_pipeline.records.source import open_records

_NUMBERED = re.compile(r"(.*?)[_.-]?\d+(?:_\d+)*", re.DOTALL)


class Seen(NamedTuple):
    """A dialogue, the paths of its pictures and their sizes in pixels; None where not known."""

    images: tuple[str, ...]
    sizes: tuple[Size | None, ...]
    dialogue: Dialogue


def read_dialogues(
    llava_paths: Sequence[PathLike],
    images_folder: PathLike | None,
    data_folder: PathLike | None,
    split: str,
    skipped: Counter[str],
) -> Iterator[Seen]:
    """Yields the dialogues of the files, or else of the split's manifest; memory does not grow.

    Rows that can't be used are counted in `skipped` under "rows". Raises UserError where files and
    a dataset, or neither, are given.
    """
    if bool(llava_paths) == (data_folder is not None):
        raise UserError("give either LLaVA-format files (--llava) or a dataset's folder (--data).")
    if data_folder is not None:
        yield from _recorded(data_folder, split)
        return
    sizes: dict[str, Size | None] = {}
    for path in llava_paths:
        for row in progress(read_llava_rows(path), f"reading {path}", unit="row"):
            if not isinstance(row, LlavaRow):
                skipped["rows"] += 1
                continue
            names = picture_names(row.image)
            for name in names:
                if name not in sizes:
                    found = images_folder and header_size(epath.Path(images_folder) / name)
                    sizes[name] = found or None
            yield Seen(names, tuple(sizes[name] for name in names), row.dialogue)


def _recorded(folder: PathLike, split: str) -> Iterator[Seen]:
    source = open_records(folder, split)
    for entry in progress(source.entries, "reading the manifest", len(source), "record"):
        for dialogue in entry.dialogues:
            yield Seen(picture_names(entry.image_id), entry.sizes, dialogue)


def kind_of(dialogue_id: str) -> str:
    """The stem of a numbered id, which says the kind of instruction: `svit_referring` of
    `svit_referring_12`; "other" for an id that is a number alone, or has none."""
    numbered = _NUMBERED.fullmatch(dialogue_id)
    return (numbered and numbered[1]) or "other"


def question_text(text: str) -> str:
    """A human turn without the marker of the picture."""
    return text.replace(IMAGE_MARKER, "").strip()
