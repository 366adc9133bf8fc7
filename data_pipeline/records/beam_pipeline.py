"""The steps of `write_dataset` as a Beam pipeline, for clusters: the same bytes.

A file is read by one worker, as a JSON list can't be split; pictures are looked for, and shards
written, by all of them. They write straight to the dataset's folder, so all must reach it and the
inputs under the same paths: a bucket, or a shared disk.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, AsSingleton
from etils import epath

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, file_sha256, read_json, write_json
from data_pipeline.records.inputs import (
    Found,
    Group,
    PictureSizes,
    Sourced,
    check_pictures,
    file_size,
    inputs_hash,
    total_bytes,
)
from data_pipeline.records.llava_rows import LlavaRow, RejectedRow, read_llava_rows
from data_pipeline.records.shard import ShardWriter
from data_pipeline.records.target import Target, WriteReport, reject

Place = tuple[int, int]
"""A row's place among all: its file's number and its own in it."""


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A group, the place of its first row, and the sizes of its pictures."""

    place: Place
    group: Group
    sizes: PictureSizes
    dropped_openings: int

    @property
    def is_missing(self) -> bool:
        return None in self.sizes


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Which of the groups each one is, in the order in which they were first seen; none where the
    dataset stands there finished."""

    writer: ShardWriter
    ranks: dict[Place, int]


def write_dataset_with_beam(
    llava_paths: Sequence[PathLike],
    images_folder: PathLike,
    target: Target,
    runner: str,
    options: Sequence[str] = (),
) -> WriteReport:
    """Writes the split on a Beam runner; `options` are Beam's own. Raises as `write_dataset`."""
    target.other_splits()
    paths = [str(path) for path in llava_paths]
    images = str(images_folder)
    found_path = target.root / f".{target.name}-{target.split}.found.json"
    try:
        with beam.Pipeline(options=PipelineOptions([f"--runner={runner}", *options])) as pipeline:
            _build(pipeline, paths, images, target, found_path)
    except RuntimeError as error:
        # What a worker raises comes back as text.
        user_error = re.search(r"UserError: (.+?)(?: \[while running|\\n|\n|$)", str(error))
        if user_error is None:
            raise
        raise UserError(user_error[1]) from None
    row = read_json(found_path)
    found_path.unlink()
    found = Found(**row | {"rejected": [RejectedRow(**each) for each in row["rejected"]]})
    writer = target.shard_writer(found, images)
    report = target.unchanged(writer)
    if report is not None:
        return report
    quarantine = target.quarantine(found)
    parts = [writer.part(number) for number in range(writer.count)]
    for part in parts:
        for rejected in part.rejected:
            reject(quarantine, rejected)
    return target.finish(writer, found, parts, quarantine)


def _build(
    pipeline: beam.Pipeline, paths: list[str], images: str, target: Target, found_path: epath.Path
) -> None:
    files = pipeline | "files" >> beam.Create(list(enumerate(paths))) | beam.Reshuffle()
    digests = files | "hash files" >> beam.Map(_digest)
    rows = files | "read rows" >> beam.FlatMap(_read)
    bad = rows | "bad rows" >> beam.Filter(lambda row: isinstance(row[1], RejectedRow))
    groups = (
        rows
        | "by picture" >> beam.FlatMap(_keyed, paths)
        | "group" >> beam.GroupByKey()
        | "look for pictures" >> beam.Map(_placed, images)
    )
    missing = (
        groups
        | "missing pictures" >> beam.Filter(lambda placed: placed.is_missing)
        | "reject missing"
        >> beam.Map(lambda placed: (placed.place, placed.group.reject_missing(placed.sizes)))
    )
    pictures = groups | "without texts" >> beam.Map(
        lambda placed: (
            placed.place,
            placed.group.image,
            placed.sizes,
            placed.dropped_openings,
        )
    )
    layout = (
        pipeline
        | "once" >> beam.Create([found_path])
        | "lay out"
        >> beam.Map(
            _lay_out,
            paths,
            images,
            target,
            AsList(digests),
            AsList(bad),
            AsList(missing),
            AsList(pictures),
        )
    )
    _ = (
        groups
        | "by shard" >> beam.FlatMap(_numbered, AsSingleton(layout))
        | "shards" >> beam.GroupByKey()
        | "write shards" >> beam.Map(_write, AsSingleton(layout))
    )


def _digest(file: tuple[int, str]) -> tuple[int, str, str]:
    return file[0], epath.Path(file[1]).name, file_sha256(file[1])


def _read(file: tuple[int, str]) -> Iterator[tuple[Place, LlavaRow | RejectedRow]]:
    for number, row in enumerate(read_llava_rows(file[1])):
        yield (file[0], number), row


def _keyed(
    placed: tuple[Place, LlavaRow | RejectedRow], paths: list[str]
) -> Iterator[tuple[str, tuple[Place, LlavaRow, str]]]:
    """The row under its picture, or, without one, under a key that no other row has."""
    place, row = placed
    if isinstance(row, LlavaRow):
        key = f"row {place}" if row.image is None else f"picture {row.image}"
        yield key, (place, row, epath.Path(paths[place[0]]).name)


def _placed(keyed: tuple[str, Iterable[tuple[Place, LlavaRow, str]]], images: str) -> _Placed:
    rows = sorted(keyed[1], key=lambda row: row[0])
    image = rows[0][1].image
    return _Placed(
        place=rows[0][0],
        group=Group(image, tuple(Sourced(row.dialogue, file) for _, row, file in rows)),
        sizes=tuple(file_size(epath.Path(images) / name) for name in picture_names(image)),
        dropped_openings=sum(row.dropped_opening for _, row, _ in rows),
    )


def _lay_out(
    found_path: epath.Path,
    paths: list[str],
    images: str,
    target: Target,
    digests: list[tuple[int, str, str]],
    bad: list[tuple[Place, RejectedRow]],
    missing: list[tuple[Place, list[RejectedRow]]],
    pictures: list[tuple[Place, str | None, PictureSizes, int]],
) -> _Layout:
    """Makes ready for the shards, and leaves what was found for the process that finishes."""
    pictures = sorted(pictures, key=lambda placed: placed[0])
    names, sizes = [row[1] for row in pictures], [row[2] for row in pictures]
    rejected = [row for _, row in sorted(bad, key=lambda placed: placed[0])]
    check_pictures(names, sizes, paths, images, rejected)
    for _, rows in sorted(missing, key=lambda placed: placed[0]):
        rejected += rows
    present = [place for place, _, each, _ in pictures if None not in each]
    found = Found(
        groups=len(present),
        picture_bytes=total_bytes(sizes),
        rejected=rejected,
        dropped_openings=sum(row[3] for row in pictures),
        hash=inputs_hash(
            [(name, sha256) for _, name, sha256 in sorted(digests)],
            zip(names, sizes, strict=True),
        ),
    )
    writer = target.shard_writer(found, images)
    write_json(found_path, dataclasses.asdict(found))
    if target.unchanged(writer) is not None:
        return _Layout(writer, {})
    target.quarantine(found)
    target.prepare(writer)
    return _Layout(writer, {place: rank for rank, place in enumerate(present)})


def _numbered(placed: _Placed, layout: _Layout) -> Iterator[tuple[int, tuple[int, Group]]]:
    rank = layout.ranks.get(placed.place)
    if rank is not None:
        yield layout.writer.shard_of(rank, len(layout.ranks)), (rank, placed.group)


def _write(shard: tuple[int, Iterable[tuple[int, Group]]], layout: _Layout) -> None:
    number, groups = shard
    if layout.writer.finished(number) is None:
        ranked = sorted(groups, key=lambda group: group[0])
        layout.writer.write(number, (group for _, group in ranked))
