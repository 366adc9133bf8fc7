"""A dataset that lies in a bucket, copied to a local disk: ArrayRecord reads local files only."""

import dataclasses
import os
import shutil

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, in_bucket, open_atomic
from data_pipeline.common.progress import progress
from data_pipeline.records.manifest import DATASET_INFO, manifest_path, read_header


def local_copy(folder: PathLike, split: str, cache: PathLike) -> str:
    """The folder, where it is local; else a folder in `cache` that holds the split's shards.

    What was copied before is not copied again: a shard is known by its size in the manifest, and
    the dataset's description, copied last, says that the copy is complete. Raises UserError where
    the dataset is in a bucket and `cache` is empty.
    """
    if not in_bucket(folder):
        return os.fspath(folder)
    if not os.fspath(cache):
        raise UserError(
            f"dataset {folder} lies in a bucket; name a local folder for a copy of it "
            "(--data.cache=FOLDER), or mount the bucket (gcsfuse)."
        )
    root = epath.Path(folder)
    header = read_header(root, split)
    identity = content_hash([dataclasses.asdict(shard) for shard in header.shards])
    copy = epath.Path(cache) / f"{split}-{identity}"
    sizes = {shard.name: shard.bytes for shard in header.shards}
    names = [*sizes, manifest_path(root, split).name, DATASET_INFO]
    for name in progress(names, f"copying {folder}", unit="file"):
        found, target = root / name, copy / name
        if target.exists() and sizes.get(name) in (None, target.stat().length):
            continue
        with found.open("rb") as source, open_atomic(target, "wb") as made:
            shutil.copyfileobj(source, made, 1 << 24)
    return os.fspath(copy)
