"""Checks of a written dataset: shards, manifest, TFDS's metadata and each record."""

import collections
import random
from collections import Counter
from collections.abc import Iterator

import tensorflow_datasets as tfds
from etils import epath

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, file_sha256, read_jsonl
from data_pipeline.common.progress import progress
from data_pipeline.inspection.box_checks import Size
from data_pipeline.inspection.dialogue_checks import DialogueChecks, row_defect
from data_pipeline.inspection.findings import Findings
from data_pipeline.inspection.ledger import Ledger
from data_pipeline.inspection.pictures import (
    decoding_fault,
    header_size,
    in_threads,
    only_size,
)
from data_pipeline.records.example import Record, record_features
from data_pipeline.records.llava_rows import parse_row
from data_pipeline.records.manifest import ManifestEntry, ManifestHeader
from data_pipeline.records.source import RecordSource, open_records

Loaded = tuple[Record | str, list[Size | None], list[str | None]]
"""A record (or why it can't be read), its pictures' sizes and why they can't be decoded."""


def check_shards(
    folder: PathLike,
    split: str,
    findings: Findings,
    sample: int | None,
    seed: int,
    dialogues: DialogueChecks | None = None,
    ledger: Ledger | None = None,
) -> Counter[str]:
    """Notes what is wrong with a split and returns how much it looked at.

    Args:
      sample: how many pictures are decoded, drawn by `seed`; None for all.
      dialogues: checks to put each dialogue through; None where its row was checked already.
      ledger: rows of JSON files that the records are held against.
    """
    try:
        source = open_records(folder, split)
    except UserError as error:
        findings.add("dataset_unreadable", str(folder), str(error))
        return Counter()
    header = source.header
    _check_files(source, findings)
    _check_tfds(folder, header, findings)
    rejected = _check_quarantine(folder, header, findings)
    counts = Counter(shards=len(header.shards))
    decoded = _sampled(len(source), sample, seed)
    entries = _entries(source, findings)
    for index, loaded in enumerate(_loaded(source, decoded)):
        entry = next(entries, None)
        where = f"record {index}"
        record, sizes, faults = loaded
        if isinstance(record, str):
            findings.add("unreadable_record", where, record)
            counts["unreadable_records"] += 1
            continue
        counts.update(records=1, record_dialogues=len(record.dialogues))
        if entry is not None and not _agree(record, sizes, entry):
            detail = f"picture {record.image_id!r}: another picture, size or dialogue is there."
            findings.add("manifest_differs", where, detail)
        counts["record_pictures"] += len(record.images)
        if decoded is None or index in decoded:
            counts["record_pictures_decoded"] += len(record.images)
        for fault in faults:
            if fault is not None:
                findings.add("broken_picture", where, fault)
        _check_dialogues(where, record, only_size(sizes), findings, dialogues, ledger)
    # Only at its end does the manifest say that it has a wrong number of rows.
    collections.deque(entries, maxlen=0)
    if not counts["unreadable_records"] and counts["record_dialogues"] != header.dialogues:
        detail = f"{counts['record_dialogues']} in the records, {header.dialogues} in its header."
        findings.add("wrong_count", "dialogues", detail)
    if ledger is not None:
        for name, where, detail in ledger.differences(rejected):
            findings.add(name, where, detail)
    return counts


def _check_files(source: RecordSource, findings: Findings) -> None:
    shards = source.header.shards
    for shard in progress(shards, "checksums", unit="shard"):
        found = file_sha256(epath.Path(source.folder) / shard.name)
        if found != shard.sha256:
            detail = f"its sha256 is {found[:12]}..., the manifest says {shard.sha256[:12]}..."
            findings.add("shard_damaged", shard.name, detail)
    records = sum(shard.records for shard in shards)
    if records != source.header.records:
        detail = f"{records} in the shards, {source.header.records} in its header."
        findings.add("wrong_count", "records", detail)


def _check_tfds(folder: PathLike, header: ManifestHeader, findings: Findings) -> None:
    try:
        info = tfds.builder_from_directory(folder).info
        split = info.splits[header.split]
        facts = {
            "name": (info.name, header.name),
            "records a shard": (list(split.shard_lengths), [s.records for s in header.shards]),
            "bytes": (split.num_bytes, sum(shard.bytes for shard in header.shards)),
            "files": (sorted(split.filenames), sorted(shard.name for shard in header.shards)),
            "features": (str(info.features), str(record_features())),
        }
    # TFDS answers damaged metadata with errors of many kinds, TensorFlow's among them.
    except Exception as error:
        detail = (
            f"TFDS can't open it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        )
        findings.add("tfds_metadata", str(folder), detail)
        return
    for what, (found, expected) in facts.items():
        if found != expected:
            findings.add("tfds_metadata", what, f"TFDS says {found}, the manifest {expected}.")


def _check_quarantine(
    folder: PathLike, header: ManifestHeader, findings: Findings
) -> Counter[tuple[str | None, str]]:
    """How many rows the writer left out, by picture and id."""
    rejected: Counter[tuple[str | None, str]] = Counter()
    path = epath.Path(folder) / f"quarantine-{header.split}.jsonl"
    if path.exists():
        rows = read_jsonl(path, "quarantine")
        rejected.update((row.get("image"), str(row.get("id"))) for row in rows)
    if rejected.total() != header.rejected:
        detail = f"{rejected.total()} rows in {path.name}, {header.rejected} in its header."
        findings.add("wrong_count", "rejected rows", detail)
    return rejected


def _entries(source: RecordSource, findings: Findings) -> Iterator[ManifestEntry]:
    try:
        yield from source.entries
    except UserError as error:
        findings.add("wrong_count", "manifest", str(error))


def _sampled(records: int, sample: int | None, seed: int) -> frozenset[int] | None:
    """The records whose pictures are decoded; None for all."""
    if sample is None or sample >= records:
        return None
    return frozenset(random.Random(seed).sample(range(records), sample))


def _loaded(source: RecordSource, decoded: frozenset[int] | None) -> Iterator[Loaded]:
    def load(index: int) -> Loaded:
        try:
            record = source[index]
        except BadRecordError as error:
            return str(error), [], []
        sizes = [header_size(image) for image in record.images]
        wanted = decoded is None or index in decoded
        faults = [
            decoding_fault(image, name) if wanted or size is None else None
            for image, name, size in zip(record.images, _names(record), sizes, strict=True)
        ]
        return record, sizes, faults

    # The header may count more records than its shards hold.
    held = min(len(source), sum(shard.records for shard in source.header.shards))
    return in_threads(load, progress(range(held), "reading records", unit="record"))


def _names(record: Record) -> tuple[str, ...]:
    """A name for each picture that a record holds, even where it names another number of them."""
    names = picture_names(record.image_id)
    return names if len(names) == len(record.images) else (record.image_id,) * len(record.images)


def _agree(record: Record, sizes: list[Size | None], entry: ManifestEntry) -> bool:
    same_sizes = len(sizes) == len(entry.sizes) and all(
        size is None or size == noted for size, noted in zip(sizes, entry.sizes, strict=True)
    )
    return same_sizes and (record.image_id, record.dialogues) == (entry.image_id, entry.dialogues)


def _check_dialogues(
    where: str,
    record: Record,
    size: Size | None,
    findings: Findings,
    dialogues: DialogueChecks | None,
    ledger: Ledger | None,
) -> None:
    image = record.image_id or None
    listed = image if len(record.images) < 2 else list(picture_names(image))
    for dialogue in record.dialogues:
        if ledger is not None:
            ledger.add_recorded(image, dialogue)
        if dialogues is None:
            continue
        place = f"{where}: {dialogue.id}"
        turns = [{"from": turn.role, "value": turn.text} for turn in dialogue.turns]
        try:
            parse_row({"id": dialogue.id, "image": listed, "conversations": turns})
        except BadRecordError as error:
            findings.add(row_defect(str(error)), place, str(error))
        else:
            dialogues.check(place, image, size, dialogue)
