"""LLaVA-format rows and a folder of pictures -> ArrayRecord shards, manifest and TFDS metadata."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress_bar
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.records.inputs import Inputs, open_inputs
from data_pipeline.records.pictures import Resize
from data_pipeline.records.shard import Part, ShardWriter
from data_pipeline.records.target import Target, WriteReport, reject


def write_dataset(
    llava_paths: Sequence[PathLike],
    images_folder: PathLike,
    out_folder: PathLike,
    name: str,
    split: str = "train",
    shards: int | None = None,
    max_bad: int | None = None,
    resize: Resize | None = None,
    workers: int | None = None,
) -> WriteReport:
    """Writes a split that `open_records` and TFDS read; the same bytes for the same inputs.

    One record holds one picture with all its dialogues in the order of the inputs; records stand in
    the order in which pictures were first seen; a row without a picture is a record of its own.
    Rows that are malformed, or whose picture is missing or broken, go to `quarantine-SPLIT.jsonl`
    with the reason.

    The dataset appears whole: dataset_info.json is written last, and `open_records` and TFDS refuse
    a folder without it. A run that was killed is gone on with: shards that it finished are kept.
    Other splits of the same dataset in the folder are kept. Where the split stands there finished
    and was made from the same inputs, nothing is written.

    Args:
      llava_paths: JSON files in LLaVA's format.
      images_folder: the folder that the rows' `image` paths start from.
      out_folder: where the dataset goes.
      name: the dataset's name in TFDS: small letters, digits and underscores.
      split: the split's name, written likewise.
      shards: how many files; None for one for every 256 MiB of pictures.
      max_bad: the most rejected rows; None for no limit.
      resize: what is done to the pictures; None keeps their files as they are.
      workers: how many shards are written at once, by threads; None for one for each core.

    Raises UserError where inputs are unreadable, more than `max_bad` rows are rejected, or the
    folder holds another dataset or a split that was made from other inputs.
    """
    target = Target(os.fspath(out_folder), name, split, shards, max_bad, resize)
    if isinstance(llava_paths, str) or not llava_paths:
        raise UserError("no instructions file is given; give a list of at least one.")
    if workers is not None and workers < 1:
        raise UserError(f"the number of workers is {workers}; expected 1 or more.")
    target.other_splits()  # reading takes long: another dataset's folder is refused before
    with open_inputs(llava_paths, images_folder) as inputs:
        writer = target.shard_writer(inputs.found, images_folder)
        report = target.unchanged(writer)
        if report is not None:
            return report
        quarantine = target.quarantine(inputs.found)
        target.prepare(writer)
        parts = list(_write_shards(writer, inputs, workers or os.cpu_count() or 1, quarantine))
        return target.finish(writer, inputs.found, parts, quarantine)


def _write_shards(
    writer: ShardWriter, inputs: Inputs, workers: int, quarantine: Quarantine
) -> Iterator[Part]:
    """Yields the parts in the order of the shards, `workers` of which are written at once.

    Threads do: what takes the time (decoding, compressing, hashing) holds no lock of Python's.
    """
    groups = inputs.found.groups
    stopped = threading.Event()
    with (
        progress_bar(groups, "writing records", "record") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def each() -> None:
            if stopped.is_set():
                raise CancelledError
            bar.update()

        def part(number: int) -> Part:
            start, stop = writer.slice_of(number, groups)
            found = writer.finished(number)
            if found is None:
                return writer.write(number, inputs.groups(start, stop), each)
            bar.update(stop - start)
            return found

        futures = [pool.submit(part, number) for number in range(writer.count)]
        try:
            for future in futures:
                made = future.result()
                for row in made.rejected:
                    reject(quarantine, row)
                yield made
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
