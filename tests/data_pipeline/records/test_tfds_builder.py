"""The TFDS builder against `write_dataset`, both read through TFDS."""

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.records.source import open_records
from data_pipeline.records.tfds_builder import Svit, SvitConfig
from data_pipeline.records.writer import write_dataset


def plain(example):
    """A TFDS example in lists, so that two can be compared."""
    if isinstance(example, dict):
        return {key: plain(value) for key, value in example.items()}
    if isinstance(example, np.ndarray):
        return example.tolist()
    return [plain(value) for value in example] if isinstance(example, list) else example


def test_download_and_prepare_gives_the_rows_that_write_dataset_gives(world):
    config = SvitConfig(
        name="own",
        llava={"train": world.paths, "held_out": world.paths[1:]},
        images=world.images,
        shards=2,
    )
    builder = Svit(data_dir=world.root / "tfds", config=config)
    builder.download_and_prepare()
    folder = world.root / "tfds/svit/own/1.0.0"
    assert builder.data_dir == str(folder)

    ours = world.root / "ours"
    write_dataset(world.paths, world.images, ours, "svit", shards=2)
    write_dataset(world.paths[1:], world.images, ours, "svit", "held_out", shards=2)
    for split, rows in (("train", 4), ("held_out", 2)):
        expected = [plain(e) for e in tfds.builder_from_directory(ours).as_data_source(split)]
        assert len(expected) == rows
        for reader in (builder, tfds.builder_from_directory(folder)):
            assert [plain(example) for example in reader.as_data_source(split)] == expected
        assert builder.info.splits[split].num_examples == rows
        assert list(open_records(folder, split)) == list(open_records(ours, split))
    for path in ours.glob("*.array_record-*"):
        assert (folder / path.name).read_bytes() == path.read_bytes()

    again = Svit(data_dir=world.root / "tfds", config=config)
    again.download_and_prepare()
    assert again.info.splits["train"].num_examples == 4
