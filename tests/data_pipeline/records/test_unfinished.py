"""A run that is killed goes on; any number of workers writes the same bytes, a bucket's too."""

import collections
import json
import subprocess
import sys
import threading

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from data_pipeline.common.errors import UserError
from data_pipeline.records import target
from data_pipeline.records.shard import ShardWriter
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset

SHARDS = 6


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def twelve(world):
    """Twelve pictures with two dialogues each; the second rows stand in a file of their own."""
    for number in range(12):
        world.put(f"{number}.png", world.picture_bytes(number, 9, 9, "PNG"))
    world.paths = [
        world.write(
            f"{part}.json", [world.row(f"{part}{n}", f"{n}.png", "Is it?", "Yes.") for n in order]
        )
        for part, order in (("one", range(12)), ("two", reversed(range(12))))
    ]
    return world


@pytest.fixture
def whole(twelve):
    """What a run that nothing stops writes."""
    write_dataset(twelve.paths, twelve.images, twelve.root / "whole", "toy", shards=SHARDS)
    return contents(twelve.root / "whole")


@pytest.fixture
def written(monkeypatch):
    """The numbers of the shards that are written from now on."""
    numbers = []
    write = ShardWriter.write

    def counted(self, number, *rest):
        numbers.append(number)
        return write(self, number, *rest)

    monkeypatch.setattr(ShardWriter, "write", counted)
    return numbers


KILLED = """
import os, signal, sys
from data_pipeline.records import shard
from data_pipeline.records.writer import write_dataset

original, seen = shard.stored_picture, []
def stored_picture(data, name, resize):
    seen.append(name)
    if len(seen) == 6:  # the second picture of the third shard
        os.kill(os.getpid(), signal.SIGKILL)
    return original(data, name, resize)
shard.stored_picture = stored_picture
write_dataset(sys.argv[3:], sys.argv[1], sys.argv[2], "toy", shards=6, workers=1)
"""


def test_after_kill_9_finished_shards_are_kept_and_the_rest_is_written(twelve, whole, written):
    out = twelve.root / "out"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(twelve.images), str(out), *map(str, twelve.paths)],
        capture_output=True,
    )
    assert run.returncode == -9, run.stderr
    assert any(path.suffix == ".partial" for path in out.iterdir())
    with pytest.raises(UserError, match="not finished"):
        open_records(out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("toy-train.array_record-*")}
    assert len(kept) == 2
    report = write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS, workers=1)
    assert written == [2, 3, 4, 5] and not report.unchanged
    assert contents(out) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


@pytest.mark.parametrize("damage", ["shard", "rows", "note"])
def test_a_kept_shard_is_held_to_its_checksum(twelve, whole, written, damage, monkeypatch):
    out = twelve.root / "out"

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, "write_manifest", killed)
        write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS)
    place = {
        "shard": next(out.glob("*-00004-of-*")),
        "rows": out / ".toy-train.unfinished/part-00004.jsonl",
        "note": out / ".toy-train.unfinished/part-00004.json",
    }[damage]
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(bytes(data))
    written.clear()
    write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS)
    assert written == [4]
    assert contents(out) == whole


def test_shards_of_other_inputs_are_not_kept(twelve, written, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    out = twelve.root / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, "write_manifest", killed)
        write_dataset(twelve.paths[:1], twelve.images, out, "toy", shards=SHARDS)
    written.clear()
    write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS)
    assert sorted(written) == list(range(SHARDS))


def test_any_number_of_workers_writes_the_same_bytes(twelve, whole, monkeypatch):
    threads = collections.Counter()
    write = ShardWriter.write
    together = threading.Barrier(3, timeout=60)

    def seen(self, number, *rest):
        threads[threading.get_ident()] += 1
        if number < 3:  # three shards really are open at a time
            together.wait()
        return write(self, number, *rest)

    monkeypatch.setattr(ShardWriter, "write", seen)
    out = twelve.root / "out"
    write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS, workers=3)
    assert len(threads) == 3 and sum(threads.values()) == SHARDS
    assert contents(out) == whole
    with pytest.raises(UserError, match="number of workers is 0"):
        write_dataset(twelve.paths, twelve.images, out, "toy", workers=0)


def test_every_picture_is_stored_once_with_all_its_dialogues(twelve, whole):
    source = open_records(twelve.root / "whole")
    assert [source[n].image_id for n in range(12)] == [f"{n}.png" for n in range(12)]
    assert [[d.id for d in source[n].dialogues] for n in range(12)] == [
        [f"one{n}", f"two{n}"] for n in range(12)
    ]


def test_the_manifest_holds_modality_words_sizes_and_checksums(world):
    write_dataset(world.paths, world.images, world.root / "out", "toy")
    _, *rows = map(json.loads, (world.root / "out/manifest-train.jsonl").read_text().splitlines())
    assert [row["modality"] for row in rows] == ["image", "text", "image", "image"]
    # LLaVA counts what whitespace separates, the marker among it.
    assert [[d["words"] for d in row["dialogues"]] for row in rows] == [
        [1 + 3 + 2, 1 + 1 + 2 + 1 + 2],
        [1 + 2 + 1 + 1],
        [1 + 1 + 1, 1 + 2 + 1],
        [1 + 1 + 0],
    ]
    assert all(row["bytes"] > 0 and len(row["sha256"]) == 64 for row in rows)
    assert len({row["sha256"] for row in rows}) == 4


def test_a_dataset_is_written_to_a_bucket(twelve, whole, monkeypatch):
    memory = fsspec.filesystem("memory")
    local = fsspec.filesystem("file")
    monkeypatch.setattr(
        backend._FileSystemSpecBackend,
        "_get_filesystem",
        lambda self, name: local if name == "file" else memory,
    )
    out = epath.Path("gs://bucket/out")
    write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert write_dataset(twelve.paths, twelve.images, out, "toy", shards=SHARDS).unchanged
