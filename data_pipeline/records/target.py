"""The split that is being written: whether it stands there, and how parts become a dataset."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.records.inputs import Found
from data_pipeline.records.llava_rows import RejectedRow
from data_pipeline.records.manifest import (
    FORMAT,
    ManifestHeader,
    finished_splits,
    manifest_path,
    read_header,
    write_manifest,
)
from data_pipeline.records.pictures import Resize
from data_pipeline.records.shard import Part, ShardWriter
from data_pipeline.records.source import shard_problem
from data_pipeline.records.tfds_metadata import write_tfds_metadata

SHARD_BYTES = 256 << 20
"""How large shards are made where their number is not given; small enough to move about freely."""


@dataclasses.dataclass(frozen=True)
class WriteReport:
    """What was written. Rows read = `dialogues` + `rejected`; `bytes` is the size of all shards.

    `reasons` counts the rejected rows by kind (None where nothing was written because the dataset
    stood there finished: `unchanged`); `dropped_openings` counts rows whose opening turn by gpt was
    left out, as LLaVA does.
    """

    records: int
    dialogues: int
    rejected: int
    bytes: int
    shards: int
    dropped_openings: int
    fingerprint: str
    quarantine: str
    reasons: dict[str, int] | None
    unchanged: bool


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a split goes and what it is to be; arguments as for `write_dataset`."""

    folder: str
    name: str
    split: str = "train"
    shards: int | None = None
    max_bad: int | None = None
    resize: Resize | None = None

    def __post_init__(self) -> None:
        for what, value in (("dataset's name", self.name), ("split", self.split)):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
                raise UserError(
                    f"the {what} is {value!r}; TFDS expects small letters, digits and underscores, "
                    "a letter first."
                )
        if self.shards is not None and self.shards < 1:
            raise UserError(f"the number of shards is {self.shards}; expected 1 or more.")
        if self.max_bad is not None and self.max_bad < 0:
            raise UserError(f"--max-bad is {self.max_bad}; expected 0 or more.")

    @property
    def root(self) -> epath.Path:
        return epath.Path(self.folder)

    def other_splits(self) -> dict[str, Any]:
        """The folder's other splits, as dataset_info.json lists them."""
        info = finished_splits(self.root)
        if info is None:
            return {}
        if info["name"] != self.name:
            raise UserError(
                f"output folder {self.folder} holds the dataset {info['name']!r}, not "
                f"{self.name!r}; choose another folder."
            )
        return {other: row for other, row in info["splits"].items() if other != self.split}

    def shard_writer(self, found: Found, images_folder: PathLike) -> ShardWriter:
        """What writes the split's shards from such inputs."""
        count = self.shards or max(1, round(found.picture_bytes / SHARD_BYTES))
        count = min(count, max(1, found.groups))
        resize = self.resize and dataclasses.asdict(self.resize)
        return ShardWriter(
            folder=self.folder,
            name=self.name,
            split=self.split,
            count=count,
            images=os.fspath(images_folder),
            resize=self.resize,
            identity=content_hash([FORMAT, self.name, self.split, count, resize, found.hash]),
        )

    def unchanged(self, writer: ShardWriter) -> WriteReport | None:
        """The report of the split if it stands there whole, made from the same inputs.

        Raises UserError where it was made from others, or has more bad rows than are allowed.
        """
        info = finished_splits(self.root)
        if info is None or self.split not in info["splits"]:
            return None
        place = f"output folder {self.folder} holds the split {self.split!r} of {self.name!r}"
        if not manifest_path(self.root, self.split).exists():
            raise UserError(
                f"{place} without a manifest, so it was not written by `svit data shard`; choose "
                "another folder."
            )
        header = read_header(self.root, self.split)
        if header.inputs != writer.identity:
            raise UserError(
                f"{place} made from other inputs (instructions, pictures, their size or the number "
                "of shards); choose another folder, or remove this one."
            )
        if shard_problem(self.root, header):
            return None
        if self.max_bad is not None and header.rejected > self.max_bad:
            raise UserError(
                f"dataset {self.folder} stands there with {header.rejected} rejected rows, more "
                f"than the {self.max_bad} allowed; all are listed in {self._quarantine_path}."
            )
        _remove_folder(writer.unfinished)
        return self._report(header, None)

    @property
    def _quarantine_path(self) -> epath.Path:
        return self.root / f"quarantine-{self.split}.jsonl"

    def quarantine(self, found: Found) -> Quarantine:
        """The split's quarantine, with what is rejected before a picture is opened. Raises
        UserError where that is more than is allowed."""
        quarantine = Quarantine(self._quarantine_path, self.max_bad)
        for row in found.rejected:
            reject(quarantine, row)
        return quarantine

    def prepare(self, writer: ShardWriter) -> None:
        """Makes the folders, and removes what a run that was killed left and this can't use.

        Shards of another number would be counted in by TFDS.
        """
        writer.unfinished.mkdir(parents=True, exist_ok=True)
        wanted = set(writer.shard_names)
        for path in self.root.iterdir():
            partial = path.name.startswith(f".{self.name}-{self.split}.array_record-")
            shard = path.name.startswith(f"{self.name}-{self.split}.array_record-")
            if partial or (shard and path.name not in wanted):
                path.unlink()

    def finish(
        self, writer: ShardWriter, found: Found, parts: Sequence[Part], quarantine: Quarantine
    ) -> WriteReport:
        """Makes a dataset of all parts, in the order of the shards.

        Raises UserError where no record has a readable picture.
        """
        records = sum(part.shard.records for part in parts)
        if not records:
            quarantine.save()
            raise UserError(
                f"none of the {found.groups} records has a readable picture; the reasons are in "
                f"{quarantine.path}."
            )
        header = ManifestHeader(
            name=self.name,
            split=self.split,
            fingerprint=_fingerprint(_lines(writer)),
            inputs=writer.identity,
            records=records,
            dialogues=sum(part.dialogues for part in parts),
            rejected=len(quarantine),
            dropped_openings=found.dropped_openings,
            resize=self.resize,
            shards=tuple(part.shard for part in parts),
        )
        quarantine.save()
        write_manifest(self.root, header, _lines(writer))
        write_tfds_metadata(
            self.root,
            self.name,
            self.split,
            [part.shard.records for part in parts],
            sum(part.shard.bytes for part in parts),
            self.other_splits(),
        )
        _remove_folder(writer.unfinished)
        return self._report(header, quarantine)

    def _report(self, header: ManifestHeader, quarantine: Quarantine | None) -> WriteReport:
        return WriteReport(
            records=header.records,
            dialogues=header.dialogues,
            rejected=header.rejected,
            bytes=sum(shard.bytes for shard in header.shards),
            shards=len(header.shards),
            dropped_openings=header.dropped_openings,
            fingerprint=header.fingerprint,
            quarantine=os.fspath(self._quarantine_path),
            reasons=None if quarantine is None else quarantine.counts(),
            unchanged=quarantine is None,
        )


def reject(quarantine: Quarantine, row: RejectedRow) -> None:
    quarantine.add(row.id, row.reason, image=row.image, file=row.file)


def _lines(writer: ShardWriter) -> Iterator[str]:
    """The manifest's rows, from all parts."""
    for number in range(writer.count):
        with writer.entries_path(number).open("r") as file:
            yield from file


def _fingerprint(lines: Iterator[str]) -> str:
    """The hash of the manifest's rows, in each of which is the hash of its record."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _remove_folder(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()
