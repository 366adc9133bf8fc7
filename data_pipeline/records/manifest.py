"""The manifest beside the shards: what they hold, without their pictures."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from etils import epath

from data_pipeline.common.dialogue import Dialogue, Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic, read_jsonl, require_file
from data_pipeline.records.pictures import Resize

FORMAT = "svit-records-2"
DATASET_INFO = "dataset_info.json"

Modality = Literal["image", "text"]


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
    cut into shards; `inputs` identifies what they were made from; `resize` says what was done to
    the pictures, None where they are the files as they were."""

    name: str
    split: str
    fingerprint: str
    inputs: str
    records: int
    dialogues: int
    rejected: int
    dropped_openings: int
    resize: Resize | None
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class ManifestEntry:
    """One record but for its pictures; `sizes` are theirs as they are stored, width and height in
    pixels, one for each that `image_id` names."""

    image_id: str
    sizes: tuple[tuple[int, int], ...]
    dialogues: tuple[Dialogue, ...]

    @property
    def modality(self) -> Modality:
        return "image" if self.image_id else "text"


def manifest_path(folder: PathLike, split: str) -> epath.Path:
    return epath.Path(folder) / f"manifest-{split}.jsonl"


def write_manifest(folder: PathLike, header: ManifestHeader, lines: Iterable[str]) -> None:
    """Writes the header and then a row for each record, as `entry_line` gives them."""
    with open_atomic(manifest_path(folder, header.split)) as file:
        first = {"format": FORMAT, **dataclasses.asdict(header)}
        file.write(json.dumps(first, ensure_ascii=False) + "\n")
        file.writelines(lines)


def entry_line(entry: ManifestEntry, data: bytes) -> str:
    """The entry as the manifest's row; `data` is the record as the shard holds it.

    A dialogue's `words` are counted as LLaVA does for its batches of equal lengths: what
    whitespace separates, over all turns, the marker with them. The width and height of one picture
    are numbers, of several they are lists.
    """
    widths, heights = ([size[side] for size in entry.sizes] for side in (0, 1))
    row = {
        "image_id": entry.image_id,
        "modality": entry.modality,
        "width": widths if len(widths) > 1 else next(iter(widths), None),
        "height": heights if len(heights) > 1 else next(iter(heights), None),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "dialogues": [
            {
                "id": dialogue.id,
                "words": sum(len(turn.text.split()) for turn in dialogue.turns),
                "turns": [[turn.role, turn.text] for turn in dialogue.turns],
            }
            for dialogue in entry.dialogues
        ],
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


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
        resize = row.pop("resize")
        return ManifestHeader(
            **row, resize=None if resize is None else Resize(**resize), shards=shards
        )
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


def _entry_from_json(row: dict[str, Any]) -> ManifestEntry:
    width, height = row["width"], row["height"]
    several = isinstance(width, list)
    sizes = zip(width, height, strict=True) if several else [(width, height)]
    return ManifestEntry(
        image_id=row["image_id"],
        sizes=() if width is None else tuple(sizes),
        dialogues=tuple(
            Dialogue(dialogue["id"], tuple(Turn(role, text) for role, text in dialogue["turns"]))
            for dialogue in row["dialogues"]
        ),
    )
