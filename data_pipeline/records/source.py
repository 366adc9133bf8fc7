"""Reading a written dataset: records by index, and their texts without touching pictures."""

import dataclasses
import os
from collections.abc import Iterator

from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike
from data_pipeline.records.example import Record, decode_record
from data_pipeline.records.manifest import (
    DATASET_INFO,
    ManifestEntry,
    ManifestHeader,
    finished_splits,
    iter_entries,
    manifest_path,
    read_header,
)


@dataclasses.dataclass(frozen=True)
class _WholeShard:
    """A file instruction in ArrayRecord's sense; with it no shard is opened before it is read."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


@dataclasses.dataclass(frozen=True)
class Entries:
    """Each record but for its pictures, in order; read from the manifest anew on every pass."""

    folder: str
    header: ManifestHeader

    def __iter__(self) -> Iterator[ManifestEntry]:
        return iter_entries(self.folder, self.header)

    def __len__(self) -> int:
        return self.header.records


class RecordSource:
    """A dataset's records by index; safe in threads, and pickled without its open files."""

    def __init__(self, folder: PathLike, header: ManifestHeader):
        self.folder = os.fspath(folder)
        self.header = header
        self._shards = ArrayRecordDataSource(
            [
                _WholeShard(os.path.join(self.folder, s.name), 0, s.records, s.records)
                for s in header.shards
            ]
        )

    @property
    def fingerprint(self) -> str:
        """Identifies the records and their order; the same however they are cut into shards."""
        return self.header.fingerprint

    @property
    def entries(self) -> Entries:
        """Each record's dialogues, and its pictures' names and sizes, without reading pictures."""
        return Entries(self.folder, self.header)

    @property
    def manifest(self) -> list[tuple[Dialogue, ...]]:
        """The dialogues of record 0, 1, ...; for datasets whose text fits the memory."""
        return [entry.dialogues for entry in self.entries]

    def __len__(self) -> int:
        return self.header.records

    def __getitem__(self, index: int) -> Record:
        """The record, its pictures still encoded. Raises IndexError outside 0..len - 1, and
        BadRecordError where the shard is damaged at this place."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.folder}")
        try:
            return decode_record(self._shards[index])
        except (RuntimeError, ValueError) as error:
            detail = str(error).split(";")[0]
            raise BadRecordError(
                f"record {index} of {self.folder} can't be read ({detail}); "
                "write the dataset again with `svit data shard`."
            ) from None


def open_records(folder: PathLike, split: str = "train") -> RecordSource:
    """The records of a split that `write_dataset` finished.

    Raises UserError where the folder, the split or a shard is absent, or a shard has another size
    than the manifest says.
    """
    root = epath.Path(folder)
    if "://" in os.fspath(folder):
        raise UserError(
            f"dataset {folder}: ArrayRecord shards are read from local or mounted folders only; "
            "mount the bucket (gcsfuse), or copy the dataset to a local folder."
        )
    if not root.is_dir():
        raise UserError(f"dataset {folder}: there is no such folder; check the path.")
    info = finished_splits(root)
    if info is None:
        raise UserError(
            f"dataset {folder} holds no {DATASET_INFO}: writing it was not finished; "
            "run `svit data shard` again."
        )
    if split not in info["splits"] or not manifest_path(root, split).exists():
        raise UserError(
            f"dataset {folder} holds no split {split!r} with a manifest; "
            f"its splits are {', '.join(sorted(info['splits']))}."
        )
    header = read_header(root, split)
    problem = shard_problem(root, header)
    if problem:
        raise UserError(
            f"dataset {folder}: {problem}; copy it again or write it again with `svit data shard`."
        )
    return RecordSource(folder, header)


def shard_problem(folder: epath.Path, header: ManifestHeader) -> str | None:
    """What is wrong with the first shard that is absent or has the wrong size; None if all fit."""
    for shard in header.shards:
        path = folder / shard.name
        if not path.exists():
            return f"shard {shard.name} is missing"
        size = path.stat().length
        if size != shard.bytes:
            return f"shard {shard.name} has {size} bytes, but the manifest says {shard.bytes}"
    return None
