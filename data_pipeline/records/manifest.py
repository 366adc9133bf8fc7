"""The manifest beside the shards: what they hold, without their pictures."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from data_pipeline.common.dialogue import Dialogue, Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_jsonl, require_file, write_jsonl

FORMAT = "svit-records-1"
DATASET_INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One ArrayRecord file: its records and its size in bytes."""

    name: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class ManifestHeader:
    """What the shards are. `fingerprint` identifies the records in their order, however they are
    cut into shards; `inputs` identifies what they were made from."""

    name: str
    split: str
    fingerprint: str
    inputs: str
    records: int
    dialogues: int
    rejected: int
    dropped_openings: int
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class ManifestEntry:
    """One record but for its picture, whose size is in pixels; None where there is no picture."""

    image_id: str
    width: int | None
    height: int | None
    dialogues: tuple[Dialogue, ...]


def manifest_path(folder: PathLike, split: str) -> epath.Path:
    return epath.Path(folder) / f"manifest-{split}.jsonl"


def write_manifest(
    folder: PathLike, header: ManifestHeader, entries: Iterable[ManifestEntry]
) -> None:
    first = {"format": FORMAT, **dataclasses.asdict(header)}
    rows = (_entry_to_json(entry) for entry in entries)
    write_jsonl(manifest_path(folder, header.split), itertools.chain([first], rows))


def read_header(folder: PathLike, split: str) -> ManifestHeader:
    """The manifest's first line. Raises UserError where it is absent or is not one."""
    path = require_file(manifest_path(folder, split), "the dataset's manifest")
    with path.open("r") as file:
        line = file.readline()
    try:
        row = json.loads(line)
        if row.pop("format") != FORMAT:
            raise ValueError("another format")
        shards = tuple(Shard(**shard) for shard in row.pop("shards"))
        return ManifestHeader(**row, shards=shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"manifest {path} does not begin with the header of {FORMAT} ({error!r}); "
            "write the dataset again with `svit data shard`."
        ) from None


def iter_entries(folder: PathLike, header: ManifestHeader) -> Iterator[ManifestEntry]:
    """Yields a row for each record, in the order of the records; memory does not grow with them.

    Raises UserError where a row is no record, or, at the end, where rows are lost.
    """
    path = manifest_path(folder, header.split)
    count = 0
    for row in itertools.islice(read_jsonl(path, "manifest"), 1, None):
        try:
            entry = _entry_from_json(row)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"manifest {path} holds a row that is no record ({error!r}); "
                "write the dataset again with `svit data shard`."
            ) from None
        yield entry
        count += 1
    if count != header.records:
        raise UserError(
            f"manifest {path} lists {count} records, but its header says {header.records}; "
            "write the dataset again with `svit data shard`."
        )


def read_entries(folder: PathLike, header: ManifestHeader) -> list[ManifestEntry]:
    """All that `iter_entries` yields; for datasets whose text fits the memory."""
    return list(iter_entries(folder, header))


def finished_splits(folder: PathLike) -> dict[str, Any] | None:
    """What TFDS's dataset_info.json says, None where it is absent: it is written last of all."""
    path = epath.Path(folder) / DATASET_INFO
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text())
        return {"name": info["name"], "splits": {s["name"]: s for s in info["splits"]}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not TFDS's description of a dataset ({error!r}); "
            "choose another output folder, or write the dataset again."
        ) from None


def _entry_to_json(entry: ManifestEntry) -> dict[str, Any]:
    return {
        "image_id": entry.image_id,
        "width": entry.width,
        "height": entry.height,
        "dialogues": [
            {"id": dialogue.id, "turns": [[turn.role, turn.text] for turn in dialogue.turns]}
            for dialogue in entry.dialogues
        ],
    }


def _entry_from_json(row: dict[str, Any]) -> ManifestEntry:
    return ManifestEntry(
        image_id=row["image_id"],
        width=row["width"],
        height=row["height"],
        dialogues=tuple(
            Dialogue(dialogue["id"], tuple(Turn(role, text) for role, text in dialogue["turns"]))
            for dialogue in row["dialogues"]
        ),
    )
