"""The dataset as a TFDS builder: `Svit(...).download_and_prepare()`, without TensorFlow."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_pipeline.common.files import PathLike
from data_pipeline.records.example import record_features
from data_pipeline.records.pictures import Resize
from data_pipeline.records.tfds_metadata import DESCRIPTION, FILE_FORMAT, VERSION
from data_pipeline.records.writer import write_dataset


@dataclasses.dataclass(eq=False, kw_only=True)
class SvitConfig(tfds.core.BuilderConfig):
    """What the dataset is made from; arguments as for `write_dataset`.

    llava: for each split, its JSON files in LLaVA's format.
    """

    llava: Mapping[str, Sequence[PathLike]]
    images: PathLike
    shards: int | None = None
    max_bad: int | None = None
    resize: Resize | None = None
    workers: int | None = None


class Svit(tfds.core.GeneratorBasedBuilder):
    """A user's own instructions and pictures under TFDS's folders, DATA_DIR/svit/CONFIG/VERSION.

    The shards are the very ones that `write_dataset` makes, and `open_records` reads the folder
    too. TFDS's own writer needs TensorFlow for ragged features; ours does not.
    """

    name = "svit"
    VERSION = tfds.core.Version(VERSION)
    builder_config: SvitConfig
    # TFDS looks beside the code for checksums of downloads, of which there are none here, and does
    # so with a package that it doesn't install.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        info = tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=record_features(),
            disable_shuffling=True,
        )
        info.set_file_format(FILE_FORMAT)
        return info

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        config = self.builder_config
        for split, files in config.llava.items():
            write_dataset(
                files,
                config.images,
                self.data_dir,
                self.name,
                split,
                config.shards,
                config.max_bad,
                config.resize,
                config.workers,
            )
        written = tfds.builder_from_directory(self.data_dir).info
        self.info.set_splits(tfds.core.splits.SplitDict(list(written.splits.values())))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise NotImplementedError("the shards are written by write_dataset")

    def _generate_examples(self) -> Iterator[Any]:
        raise NotImplementedError("the shards are written by write_dataset")
