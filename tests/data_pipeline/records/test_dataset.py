"""Writing and reading back: by `open_records`, and by TFDS where TensorFlow can't be imported."""

import base64
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.records import target
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def quarantined(folder, split="train"):
    lines = (folder / f"quarantine-{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("shards", [None, 1, 2, 4])
def test_records_read_back_in_first_seen_order(world, shards):
    out = world.root / "out"
    report = write_dataset(world.paths, world.images, out, "toy", shards=shards)
    assert (report.records, report.dialogues, report.rejected) == (4, 6, 0)
    assert report.shards == (shards or 1) and not report.unchanged
    assert report.bytes == sum(p.stat().st_size for p in out.glob("toy-train.array_record-*"))

    source = open_records(out)
    assert len(source) == 4 and source.fingerprint == report.fingerprint
    for index, (image_id, ids) in enumerate(world.order):
        record = source[index]
        assert record.image_id == image_id
        assert record.images == ((world.pictures[image_id],) if image_id else ())
        assert tuple(dialogue.id for dialogue in record.dialogues) == ids
        for dialogue in record.dialogues:
            assert [(t.role, t.text) for t in dialogue.turns] == world.turns(dialogue.id)
    with pytest.raises(IndexError):
        source[4]


def test_the_manifest_says_the_same_without_the_shards(world):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy", shards=2)
    source = open_records(out)
    records = [source[index].dialogues for index in range(4)]
    for path in out.glob("*.array_record-*"):
        path.unlink()
    assert source.manifest == records
    sizes = [(entry.image_id, entry.sizes) for entry in source.entries]
    assert sizes == [
        ("VG_100K/1.jpg", ((12, 8),)),
        ("", ()),
        ("coco/3.jpg", ((6, 6),)),
        ("VG_100K/2.png", ((7, 9),)),
    ]
    header = json.loads((out / "manifest-train.jsonl").read_text().splitlines()[0])
    assert (header["records"], header["dialogues"], header["rejected"]) == (4, 6, 0)


READ_WITH_TFDS = """
import base64, json, sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):  # so that it can't be imported, installed or not
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path = [WithoutTensorFlow if f is PathFinder else f for f in sys.meta_path]
try:
    import tensorflow
except ImportError:
    pass
else:
    raise SystemExit("TensorFlow could be imported")
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
rows = []
for example in builder.as_data_source("train"):
    turns = example["dialogues"]["turns"]
    rows.append({
        "image_id": example["image_id"].decode(),
        "images": [
            {"shape": image.shape, "data": base64.b64encode(image.tobytes()).decode()}
            for image in example["images"]
        ],
        "dialogues": [
            [name.decode(), [[r.decode(), t.decode()] for r, t in zip(roles, texts, strict=True)]]
            for name, roles, texts in zip(
                example["dialogues"]["id"], turns["role"], turns["text"], strict=True
            )
        ],
    })
slice_length = len(builder.as_data_source("train[1:3]"))
print(json.dumps({
    "rows": rows, "slice": slice_length, "splits": sorted(builder.info.splits),
    "examples": builder.info.splits["train"].num_examples, "name": builder.info.name,
}))
"""


def read_with_tfds(folder):
    run = subprocess.run(
        [sys.executable, "-c", READ_WITH_TFDS, str(folder)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_tfds_reads_equal_rows_without_tensorflow(world):
    out = world.root / "out"
    # Broken pictures empty a whole shard, which TFDS has to step over.
    world.put("VG_100K/broken.jpg", b"no picture")
    broken = world.write("broken.json", [world.row("c0", "VG_100K/broken.jpg", "What?", "This.")])
    report = write_dataset([broken, *world.paths], world.images, out, "toy", shards=5)
    assert report.shards == 5 and report.rejected == 1
    write_dataset(world.paths[1:], world.images, out, "toy", split="held_out")

    read = read_with_tfds(out)
    assert (read["name"], read["splits"]) == ("toy", ["held_out", "train"])
    assert (read["examples"], read["slice"]) == (4, 2)
    for example, (image_id, ids) in zip(read["rows"], world.order, strict=True):
        assert example["image_id"] == image_id
        assert example["dialogues"] == [[i, [list(t) for t in world.turns(i)]] for i in ids]
        expected = (
            [np.asarray(Image.open(io.BytesIO(world.pictures[image_id])))] if image_id else []
        )
        assert [tuple(image["shape"]) for image in example["images"]] == [e.shape for e in expected]
        for image, pixels in zip(example["images"], expected, strict=True):
            assert base64.b64decode(image["data"]) == pixels.tobytes()


def test_two_runs_write_the_same_bytes(world):
    for folder in ("one", "two"):
        write_dataset(world.paths, world.images, world.root / folder, "toy", shards=2)
    one = contents(world.root / "one")
    assert one == contents(world.root / "two")
    header = json.loads(one["manifest-train.jsonl"].splitlines()[0])
    for shard in header["shards"]:
        assert shard["sha256"] == hashlib.sha256(one[shard["name"]]).hexdigest()


def test_the_fingerprint_is_of_the_records_not_of_the_shards(world):
    first = write_dataset(world.paths, world.images, world.root / "one", "toy", shards=1)
    same = write_dataset(world.paths, world.images, world.root / "two", "toy", shards=3)
    other = write_dataset(world.paths[::-1], world.images, world.root / "three", "toy")
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_a_second_run_changes_nothing(world):
    out = world.root / "out"
    first = write_dataset(world.paths, world.images, out, "toy")
    before, written = contents(out), times(out)
    second = write_dataset(world.paths, world.images, out, "toy")
    assert second.unchanged and second.fingerprint == first.fingerprint
    assert (contents(out), times(out)) == (before, written)


@pytest.mark.parametrize("change", ["rows", "picture", "shards"])
def test_other_inputs_into_the_same_folder_are_refused(world, change):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy", shards=2)
    before = contents(out)
    if change == "rows":
        world.write("a.json", world.rows_a[:-1])
    if change == "picture":
        world.put("coco/3.jpg", world.picture_bytes(9, 30, 20))
    with pytest.raises(UserError, match=r"made from other inputs .*choose another folder"):
        write_dataset(world.paths, world.images, out, "toy", shards=3 if change == "shards" else 2)
    with pytest.raises(UserError, match="holds the dataset 'toy', not 'other'"):
        write_dataset(world.paths, world.images, out, "other")
    assert contents(out) == before


def test_missing_and_broken_pictures_are_quarantined_row_by_row(world):
    out = world.root / "out"
    (world.images / "coco/3.jpg").unlink()
    world.put("VG_100K/2.png", world.pictures["VG_100K/2.png"][:80])
    world.write("b.json", [*world.rows_b, {"id": "b2"}])
    report = write_dataset(world.paths, world.images, out, "toy")
    assert (report.records, report.dialogues, report.rejected) == (2, 3, 4)
    assert report.reasons == {"bad row": 1, "missing picture": 2, "broken picture": 1}
    assert report.quarantine == str(out / "quarantine-train.jsonl")
    assert [(r["id"], r["file"], r["image"]) for r in quarantined(out)] == [
        ("b2", "b.json", None),
        ("a2", "a.json", "coco/3.jpg"),
        ("b0", "b.json", "coco/3.jpg"),
        ("b1", "b.json", "VG_100K/2.png"),
    ]
    assert len(open_records(out)) == 2
    with pytest.raises(UserError, match="4 rejected rows, more than the 3 allowed"):
        write_dataset(world.paths, world.images, out, "toy", max_bad=3)
    assert write_dataset(world.paths, world.images, out, "toy", max_bad=4).unchanged


def test_too_many_bad_rows_stop_the_run_and_leave_no_dataset(world):
    out = world.root / "out"
    world.put("coco/3.jpg", b"broken")
    with pytest.raises(UserError, match="2 bad records, more than the 1 allowed"):
        write_dataset(world.paths, world.images, out, "toy", max_bad=1)
    assert [r["id"] for r in quarantined(out)] == ["a2", "b0"]
    assert not (out / "dataset_info.json").exists()
    assert [path.name for path in out.glob(".*")] == [".toy-train.unfinished"]
    with pytest.raises(UserError, match=r"holds no dataset_info\.json: .*not finished"):
        open_records(out)


def test_a_run_that_was_killed_is_made_good_by_the_next(world, monkeypatch):
    whole, out = world.root / "whole", world.root / "out"
    write_dataset(world.paths, world.images, whole, "toy", shards=2)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(target, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(world.paths, world.images, out, "toy", shards=3)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not finished"):
        open_records(out)
    write_dataset(world.paths, world.images, out, "toy", shards=2)
    assert contents(out) == contents(whole)


def test_a_dataset_that_lost_a_shard_is_written_again(world):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy", shards=2)
    before = contents(out)
    lost = next(out.glob("*00001-of-00002"))
    lost.unlink()
    with pytest.raises(UserError, match=f"shard {lost.name} is missing"):
        open_records(out)
    lost.write_bytes(b"short")
    with pytest.raises(UserError, match=f"shard {lost.name} has 5 bytes, but the manifest says"):
        open_records(out)
    assert not write_dataset(world.paths, world.images, out, "toy", shards=2).unchanged
    assert contents(out) == before


def test_a_damaged_record_is_a_bad_record_and_its_neighbours_are_read(world):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy")
    (shard,) = out.glob("*.array_record-*")
    data = bytearray(shard.read_bytes())
    # A picture's bytes do not compress, so the second half of them stands in the shard as it is.
    place = bytes(data).find(world.pictures["VG_100K/1.jpg"][-100:-50])
    assert place > 0
    data[place] ^= 255
    shard.write_bytes(bytes(data))
    source = open_records(out)
    with pytest.raises(BadRecordError, match=r"record 0 of .* can't be read"):
        source[0]
    assert source[2].images == (world.pictures["coco/3.jpg"],)


def test_a_source_is_pickled_small_and_works_after(world):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy")
    source = open_records(out)
    records = [source[index] for index in range(4)]
    assert len(source.manifest) == 4
    data = pickle.dumps(source)
    assert b"He waits." not in data
    copy = pickle.loads(data)
    assert [copy[index] for index in range(4)] == records
    assert copy.manifest == source.manifest


def test_a_dataset_of_text_alone(world):
    path = world.write("text.json", [world.row(f"t{n}", None, "Hi?", "Yes.") for n in range(3)])
    write_dataset([path], world.root / "no_such_folder", world.root / "out", "toy", shards=9)
    source = open_records(world.root / "out")
    assert [(source[n].image_id, source[n].images) for n in range(3)] == [("", ())] * 3


@pytest.mark.parametrize(
    "changes,problem",
    [
        ({"name": "Not-A-Name"}, "dataset's name is 'Not-A-Name'"),
        ({"split": "a b"}, "split is 'a b'"),
        ({"shards": 0}, "number of shards is 0"),
        ({"max_bad": -1}, "--max-bad is -1"),
        ({"llava_paths": []}, "no instructions file is given"),
        ({"images_folder": "nowhere"}, "images folder nowhere holds none of the 3 pictures"),
    ],
)
def test_wrong_arguments_are_user_errors(world, changes, problem):
    arguments = {
        "llava_paths": world.paths,
        "images_folder": world.images,
        "out_folder": world.root / "out",
        "name": "toy",
        **changes,
    }
    with pytest.raises(UserError, match=problem):
        write_dataset(**arguments)
    assert not (world.root / "out").exists()


def test_files_without_a_usable_row_are_a_user_error(world):
    path = world.write("bad.json", [{"id": "x"}])
    with pytest.raises(UserError, match="none of the 1 rows is usable; the first one: bad row"):
        write_dataset([path], world.images, world.root / "out", "toy")


def test_a_foreign_dataset_is_never_written_over(world):
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy")
    os.remove(out / "manifest-train.jsonl")
    before = contents(out)
    with pytest.raises(UserError, match="without a manifest"):
        write_dataset(world.paths, world.images, out, "toy")
    assert contents(out) == before
    with pytest.raises(UserError, match="no split 'train' with a manifest"):
        open_records(out)


def test_what_open_records_refuses(world):
    with pytest.raises(UserError, match="there is no such folder"):
        open_records(world.root / "nowhere")
    with pytest.raises(UserError, match="local or mounted folders only"):
        open_records("gs://bucket/dataset")
    out = world.root / "out"
    write_dataset(world.paths, world.images, out, "toy")
    with pytest.raises(UserError, match="no split 'test' with a manifest; its splits are train"):
        open_records(out, "test")
    manifest = out / "manifest-train.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="lists 3 records, but its header says 4"):
        _ = open_records(out).manifest
    manifest.write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="does not begin with the header"):
        open_records(out)
