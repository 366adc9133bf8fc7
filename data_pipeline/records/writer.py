"""LLaVA-format rows and a folder of pictures -> ArrayRecord shards, manifest and TFDS metadata."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from array_record.python import array_record_module
from etils import epath

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, content_hash, file_sha256
from data_pipeline.common.progress import progress_bar
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.images.transforms import decode_picture
from data_pipeline.records.example import Record, encode_record
from data_pipeline.records.inputs import Group, Inputs, read_inputs
from data_pipeline.records.llava_rows import RejectedRow
from data_pipeline.records.manifest import (
    FORMAT,
    ManifestEntry,
    ManifestHeader,
    Shard,
    finished_splits,
    manifest_path,
    read_header,
    write_manifest,
)
from data_pipeline.records.source import shard_problem
from data_pipeline.records.tfds_metadata import shard_names, write_tfds_metadata

SHARD_BYTES = 256 << 20
"""How large shards are made where their number is not given; small enough to move about freely."""

_READ_AHEAD = 64


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


def write_dataset(
    llava_paths: Sequence[PathLike],
    images_folder: PathLike,
    out_folder: PathLike,
    name: str,
    split: str = "train",
    shards: int | None = None,
    max_bad: int | None = None,
) -> WriteReport:
    """Writes a split that `open_records` and TFDS read; the same bytes for the same inputs.

    One record holds one picture's file as it is, with all its dialogues in the order of the inputs;
    records stand in the order in which pictures were first seen; a row without a picture is a
    record of its own. Rows that are malformed, or whose picture is missing or broken, go to
    `quarantine-SPLIT.jsonl` with the reason.

    The dataset appears whole: dataset_info.json is written last, and `open_records` and TFDS refuse
    a folder without it. Other splits of the same dataset in the folder are kept. Where the split
    stands there finished and was made from the same inputs, nothing is written.

    Args:
      llava_paths: JSON files in LLaVA's format.
      images_folder: the folder that the rows' `image` paths start from.
      out_folder: where the dataset goes.
      name: the dataset's name in TFDS: small letters, digits and underscores.
      split: the split's name, written likewise.
      shards: how many files; None for one for every 256 MiB of pictures.
      max_bad: the most rejected rows; None for no limit.

    Raises UserError where inputs are unreadable, more than `max_bad` rows are rejected, or the
    folder holds another dataset or a split that was made from other inputs.
    """
    _check_arguments(llava_paths, name, split, shards, max_bad)
    folder = epath.Path(out_folder)
    others = _other_splits(folder, name, split)
    inputs = read_inputs(llava_paths, images_folder)
    count = shards or max(1, round(inputs.picture_bytes / SHARD_BYTES))
    count = min(count, max(1, len(inputs.groups)))
    identity = content_hash([FORMAT, name, split, count, inputs.hash])
    quarantine = Quarantine(folder / f"quarantine-{split}.jsonl", max_bad)

    header = _finished(folder, name, split, identity)
    if header is not None:
        if max_bad is not None and header.rejected > max_bad:
            raise UserError(
                f"dataset {folder} stands there with {header.rejected} rejected rows, more than "
                f"the {max_bad} allowed; all are listed in {quarantine.path}."
            )
        return _report(header, quarantine, unchanged=True)

    for row in inputs.rejected:
        _reject(quarantine, row)
    _remove_leftovers(folder, name, split)
    header, entries = _write_shards(
        folder, epath.Path(images_folder), inputs, name, split, count, identity, quarantine
    )
    quarantine.save()
    write_manifest(folder, header, entries)
    write_tfds_metadata(
        folder,
        name,
        split,
        [shard.records for shard in header.shards],
        sum(shard.bytes for shard in header.shards),
        others,
    )
    return _report(header, quarantine, unchanged=False)


def _check_arguments(
    llava_paths: Sequence[PathLike],
    name: str,
    split: str,
    shards: int | None,
    max_bad: int | None,
) -> None:
    if isinstance(llava_paths, str) or not llava_paths:
        raise UserError("no instructions file is given; give a list of at least one.")
    for what, value in (("dataset's name", name), ("split", split)):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
            raise UserError(
                f"the {what} is {value!r}; TFDS expects small letters, digits and underscores, "
                "a letter first."
            )
    if shards is not None and shards < 1:
        raise UserError(f"the number of shards is {shards}; expected 1 or more.")
    if max_bad is not None and max_bad < 0:
        raise UserError(f"--max-bad is {max_bad}; expected 0 or more.")


def _other_splits(folder: epath.Path, name: str, split: str) -> dict[str, Any]:
    info = finished_splits(folder)
    if info is None:
        return {}
    if info["name"] != name:
        raise UserError(
            f"output folder {folder} holds the dataset {info['name']!r}, not {name!r}; "
            "choose another folder."
        )
    return {other: row for other, row in info["splits"].items() if other != split}


def _finished(folder: epath.Path, name: str, split: str, identity: str) -> ManifestHeader | None:
    """The header of the split if it stands there whole, made from these inputs."""
    info = finished_splits(folder)
    if info is None or split not in info["splits"]:
        return None
    if not manifest_path(folder, split).exists():
        raise UserError(
            f"output folder {folder} holds the split {split!r} of {name!r} without a manifest, so "
            "it was not written by `svit data shard`; choose another folder."
        )
    header = read_header(folder, split)
    if header.inputs != identity:
        raise UserError(
            f"output folder {folder} holds the split {split!r} of {name!r} made from other inputs "
            "(instructions, pictures or the number of shards); choose another folder, or remove "
            "this one."
        )
    return None if shard_problem(folder, header) else header


def _remove_leftovers(folder: epath.Path, name: str, split: str) -> None:
    """Removes shards of a run that was stopped: TFDS would count those of another number in."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name.startswith((f"{name}-{split}.array_record-", f".{name}-{split}.")):
                path.unlink()


def _write_shards(
    folder: epath.Path,
    images: epath.Path,
    inputs: Inputs,
    name: str,
    split: str,
    count: int,
    identity: str,
    quarantine: Quarantine,
) -> tuple[ManifestHeader, list[ManifestEntry]]:
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    entries: list[ManifestEntry] = []
    shards = []
    with (
        progress_bar(len(inputs.groups), "writing records", "record") as bar,
        ThreadPoolExecutor() as pool,
    ):
        for number, shard_name in enumerate(shard_names(name, split, count)):
            start, stop = (len(inputs.groups) * n // count for n in (number, number + 1))
            before = len(entries)
            with _open_shard(folder / shard_name) as writer:
                for loaded in _load_all(pool, images, inputs.groups[start:stop]):
                    bar.update()
                    if isinstance(loaded, list):
                        for row in loaded:
                            _reject(quarantine, row)
                        continue
                    entry, data = loaded
                    writer.write(data)
                    digest.update(len(data).to_bytes(8, "little") + data)
                    entries.append(entry)
            path = folder / shard_name
            size, sha256 = path.stat().length, file_sha256(path)
            shards.append(Shard(shard_name, len(entries) - before, size, sha256))
    if not entries:
        raise UserError(
            f"none of the {len(inputs.groups)} records has a readable picture; the reasons are in "
            f"{_saved(quarantine)}."
        )
    header = ManifestHeader(
        name=name,
        split=split,
        fingerprint=digest.hexdigest()[:16],
        inputs=identity,
        records=len(entries),
        dialogues=sum(len(entry.dialogues) for entry in entries),
        rejected=len(quarantine),
        dropped_openings=inputs.dropped_openings,
        shards=tuple(shards),
    )
    return header, entries


Loaded = tuple[ManifestEntry, bytes] | list[RejectedRow]


def _load_all(
    pool: ThreadPoolExecutor, images: epath.Path, groups: Sequence[Group]
) -> Iterator[Loaded]:
    """Yields each group's record, in order; threads decode ahead, but never far ahead."""
    remaining = iter(groups)
    while batch := list(itertools.islice(remaining, _READ_AHEAD)):
        yield from pool.map(lambda group: _load(images, group), batch)


def _load(images: epath.Path, group: Group) -> Loaded:
    """The group as a record, its picture decoded once to know that it can be; or why not."""
    dialogues = tuple(member.dialogue for member in group.members)
    if group.image is None:
        entry = ManifestEntry("", None, None, dialogues)
        return entry, encode_record(Record("", None, dialogues))
    try:
        picture = (images / group.image).read_bytes()
        width, height = decode_picture(picture, group.image).size
    except BadRecordError as error:
        return group.reject(f"broken picture: {error}")
    except OSError as error:
        return group.reject(f"unreadable picture: {group.image} ({error.strerror}).")
    entry = ManifestEntry(group.image, width, height, dialogues)
    return entry, encode_record(Record(group.image, picture, dialogues))


@contextlib.contextmanager
def _open_shard(target: epath.Path) -> Iterator[array_record_module.ArrayRecordWriter]:
    """A writer whose file appears under `target` when the block ends without an error.

    The writer knows local paths only, so a shard for a bucket is made in a scratch folder first.
    """
    in_bucket = "://" in os.fspath(target)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory()) if in_bucket else target.parent
        aside = epath.Path(place) / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            # Group size 1: a record is read without its neighbours, as Grain and TFDS expect.
            writer = array_record_module.ArrayRecordWriter(os.fspath(aside), "group_size:1")
            try:
                yield writer
            finally:
                writer.close()
            if in_bucket:
                aside.copy(target, overwrite=True)
            else:
                aside.replace(target)
        except RuntimeError as error:
            raise UserError(
                f"shard {target} can't be written ({error}); check the folder and the free space."
            ) from None
        finally:
            aside.unlink(missing_ok=True)


def _reject(quarantine: Quarantine, row: RejectedRow) -> None:
    quarantine.add(row.id, row.reason, image=row.image, file=row.file)


def _saved(quarantine: Quarantine) -> PathLike:
    quarantine.save()
    return quarantine.path


def _report(header: ManifestHeader, quarantine: Quarantine, unchanged: bool) -> WriteReport:
    return WriteReport(
        records=header.records,
        dialogues=header.dialogues,
        rejected=header.rejected,
        bytes=sum(shard.bytes for shard in header.shards),
        shards=len(header.shards),
        dropped_openings=header.dropped_openings,
        fingerprint=header.fingerprint,
        quarantine=os.fspath(quarantine.path),
        reasons=None if unchanged else quarantine.counts(),
        unchanged=unchanged,
    )
