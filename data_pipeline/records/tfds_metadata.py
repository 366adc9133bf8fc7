"""The two files that make a folder of shards a TFDS dataset."""

import os
import tempfile
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from data_pipeline.common.files import PathLike, write_text
from data_pipeline.records.example import record_features
from data_pipeline.records.manifest import DATASET_INFO

FILE_FORMAT = "array_record"
VERSION = "1.0.0"
DESCRIPTION = """One record holds one picture (`images` is empty for text alone) with all its
dialogues: turns by "human" and "gpt" in alternation; "<image>" marks the picture's place.
Where dialogues show several pictures, `images` holds these in order, and `image_id` names them one
a line."""


def shard_names(name: str, split: str, count: int) -> list[str]:
    """The file names that TFDS expects of the shards of a split."""
    return [f"{name}-{split}.{FILE_FORMAT}-{number:05d}-of-{count:05d}" for number in range(count)]


def write_tfds_metadata(
    folder: PathLike,
    name: str,
    split: str,
    shard_records: list[int],
    num_bytes: int,
    other_splits: dict[str, Any],
) -> None:
    """Writes features.json, then dataset_info.json, whose presence says that all is there.

    `other_splits` are the folder's other splits as dataset_info.json lists them; they are kept.
    """
    infos = [tfds.core.SplitInfo(name=split, shard_lengths=shard_records, num_bytes=num_bytes)]
    for other, row in other_splits.items():
        lengths = [int(length) for length in row["shardLengths"]]
        infos.append(
            tfds.core.SplitInfo(name=other, shard_lengths=lengths, num_bytes=int(row["numBytes"]))
        )
    identity = DatasetIdentity(
        name=name, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=DESCRIPTION,
        features=record_features(),
        disable_shuffling=True,
    )
    info.set_file_format(FILE_FORMAT)
    info.set_splits(tfds.core.splits.SplitDict(sorted(infos, key=lambda split: split.name)))
    # TFDS writes in place; going through a scratch folder lets each file appear whole.
    with tempfile.TemporaryDirectory() as scratch:
        info.write_to_directory(scratch)
        for file_name in ("features.json", DATASET_INFO):
            text = (epath.Path(scratch) / file_name).read_text()
            write_text(epath.Path(folder) / file_name, text)
