"""Writing records and reading them at random, beside webdataset and a torch DataLoader.

    python benchmarks/data_shards.py
    pip install webdataset==1.0.2 torch==2.13.0    # the CPU build of torch, for Python 3.11
    nice -n 10 python benchmarks/data_shards.py --pictures 3000 --out benchmarks/results

Both write the same pictures and dialogues from the same JSON into as many shards. `svit data shard`
decodes each picture to know that it can be; webdataset is measured as it comes, and with that
check. Reading is of a whole epoch in random order, pictures still encoded, into plain Python: ours
with Grain (any order), webdataset with a shuffle buffer of 1000 in a torch DataLoader, in this
process and with two workers. Each figure is the best of three runs. Without the two packages only
ours is measured.
"""

import argparse
import importlib.util
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import numpy as np
from PIL import Image

from data_pipeline.images.transforms import decode_picture
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset

DIALOGUES = 6
SHARD_BYTES = 64 << 20
RUNS = 3


def write_world(folder: Path, pictures: int) -> int:
    """Pictures of 640 x 480 that compress as photographs do, and their rows; returns the bytes."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    rows, size = [], 0
    for number in range(pictures):
        waves = [np.sin(a * x + b * y) for a, b in rng.uniform(0.005, 0.2, (3, 2))]
        noise = rng.normal(0, 6, (480, 640, 3))
        pixels = (127 + 90 * np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        (folder / "images" / f"{number}.jpg").write_bytes(file.getvalue())
        size += len(file.getvalue())
        for part in range(DIALOGUES):
            words = rng.choice(["man", "dog", "left", "because", "of", "the", "tree"], 80)
            turns = [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": " ".join(words)},
            ]
            row = {"id": f"{number}_{part}", "image": f"{number}.jpg", "conversations": turns}
            rows.append(row)
    (folder / "rows.json").write_text(json.dumps(rows))
    return size


def best_seconds(run: Callable[[], int], expected: int) -> float:
    """The shortest of the runs, each of which says how many records it went through."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        if (found := run()) != expected:
            raise SystemExit(f"went through {found} records, not {expected}")
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def write_ours(folder: Path, workers: int, shards: int) -> int:
    shutil.rmtree(folder / "ours", ignore_errors=True)
    inputs = [folder / "rows.json"], folder / "images"
    return write_dataset(*inputs, folder / "ours", "bench", shards=shards, workers=workers).records


def read_ours(folder: Path) -> int:
    source = open_records(folder / "ours")
    dataset = grain.MapDataset.source(source).shuffle(seed=0)
    records = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16))
    return sum(bool(record.images and record.dialogues) for record in records)


def write_theirs(folder: Path, check: bool, shards: int) -> int:
    import webdataset

    shutil.rmtree(folder / "theirs", ignore_errors=True)
    (folder / "theirs").mkdir()
    by_picture: dict[str, list[Any]] = {}
    for row in json.loads((folder / "rows.json").read_text()):
        by_picture.setdefault(row["image"], []).append([row["id"], row["conversations"]])
    most = -(-len(by_picture) // shards)
    pattern = str(folder / "theirs" / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=most, verbose=0) as writer:
        for name, dialogues in by_picture.items():
            data = (folder / "images" / name).read_bytes()
            if check:
                decode_picture(data, name)
            key = name.removesuffix(".jpg")
            writer.write({"__key__": key, "jpg": data, "json": json.dumps(dialogues).encode()})
    return len(by_picture)


def parsed(sample: dict[str, Any]) -> tuple[bytes, Any]:
    return sample["jpg"], json.loads(sample["json"])


def read_theirs(folder: Path, workers: int) -> int:
    import webdataset
    from torch.utils.data import DataLoader

    files = sorted(str(path) for path in (folder / "theirs").glob("*.tar"))
    dataset = webdataset.WebDataset(files, shardshuffle=100, seed=0).shuffle(1000).map(parsed)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    return sum(bool(image and dialogues) for image, dialogues in loader)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    number = options.pictures
    folder = Path(tempfile.mkdtemp(prefix="data_shards_"))
    try:
        size = write_world(folder, number)
        shards = max(4, round(size / SHARD_BYTES))
        runs = {
            "write_ours_1_worker": lambda: write_ours(folder, 1, shards),
            "write_ours_2_workers": lambda: write_ours(folder, 2, shards),
            "read_ours": lambda: read_ours(folder),
        }
        peers = all(importlib.util.find_spec(name) for name in ("webdataset", "torch"))
        if peers:
            runs |= {
                "write_webdataset_unchecked": lambda: write_theirs(folder, False, shards),
                "write_webdataset_checked": lambda: write_theirs(folder, True, shards),
                "read_webdataset_0_workers": lambda: read_theirs(folder, 0),
                "read_webdataset_2_workers": lambda: read_theirs(folder, 2),
            }
        seconds = {name: best_seconds(run, number) for name, run in runs.items()}
    finally:
        shutil.rmtree(folder)
    result: dict[str, Any] = {"pictures": number, "picture_mb": round(size / 1e6, 1)}
    for name, each in seconds.items():
        rates = {"records_per_s": number / each, "mb_per_s": size / each / 1e6}
        result[name] = {key: round(rate, 1) for key, rate in rates.items()}
    if peers:
        ours = min(seconds["write_ours_1_worker"], seconds["write_ours_2_workers"])
        theirs = min(seconds["read_webdataset_0_workers"], seconds["read_webdataset_2_workers"])
        result["times_as_fast_as_webdataset"] = {
            "write": round(seconds["write_webdataset_checked"] / ours, 2),
            "write_against_unchecked": round(seconds["write_webdataset_unchecked"] / ours, 2),
            "read": round(theirs / seconds["read_ours"], 2),
        }
    result |= {
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "load_at_the_end": round(os.getloadavg()[0], 1),
        "command": f"python benchmarks/data_shards.py --pictures {number}",
    }
    print(json.dumps(result), flush=True)
    if options.out:
        path = Path(options.out) / "data_shards.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
