"""Rows whose `image` is a list of paths: what of them becomes a record, and how TFDS reads it."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipeline.common.dialogue import picture_names
from data_pipeline.records.inputs import find_sizes
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset

PAIR = ["VG_100K/1.jpg", "VG_100K/2.png"]


def compared(row_id, images, question="<image>\n<image>\nWhat differs?"):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "The colour."}]
    return {"id": row_id, "image": images, "conversations": turns}


@pytest.fixture
def written(world):
    """Writes rows beside those of the world's first file; gives the report and the folder."""

    def write(*rows):
        paths = [world.paths[0], world.write("pairs.json", list(rows))]
        out = world.root / "out"
        return write_dataset(paths, world.images, out, "toy", shards=2), out

    return write


def test_equal_lists_share_a_record_and_others_have_their_own(written, world):
    report, out = written(
        compared("p0", PAIR), compared("p1", PAIR[::-1]), compared("p2", PAIR), compared("p3", PAIR)
    )
    assert (report.records, report.dialogues, report.rejected) == (5, 8, 0)
    source = open_records(out)
    ids = {
        picture_names(r.image_id): [d.id for d in r.dialogues]
        for r in (source[n] for n in range(5))
    }
    assert ids == {
        ("VG_100K/1.jpg",): ["a0", "a3"],
        (): ["a1"],
        ("coco/3.jpg",): ["a2"],
        tuple(PAIR): ["p0", "p2", "p3"],
        tuple(PAIR[::-1]): ["p1"],
    }
    assert source[4].images == tuple(world.pictures[name] for name in PAIR[::-1])
    assert [entry.sizes for entry in source.entries][3:] == [((12, 8), (7, 9)), ((7, 9), (12, 8))]
    line = json.loads((out / "manifest-train.jsonl").read_text().splitlines()[4])
    assert (line["image_id"], line["width"], line["height"]) == ("\n".join(PAIR), [12, 7], [8, 9])


def test_tfds_reads_all_pictures_in_order(written, world):
    _, out = written(compared("p0", PAIR))
    example = tfds.builder_from_directory(out).as_data_source("train")[3]
    assert example["image_id"].decode().split("\n") == PAIR
    expected = [np.asarray(Image.open(io.BytesIO(world.pictures[name]))) for name in PAIR]
    assert len(example["images"]) == 2
    for found, pixels in zip(example["images"], expected, strict=True):
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("images", "question", "reason"),
    [
        (PAIR, "<image>\nWhat?", "bad row: pairs.json[0] lists 2 pictures, and has 1 <image> in"),
        (PAIR, "<image>" * 3, "bad row: pairs.json[0] lists 2 pictures, and has 3 <image> in"),
        ([PAIR[0], "none.jpg"], "<image><image>", "missing picture: there is no file none.jpg."),
        ([PAIR[0], "torn.jpg"], "<image><image>", "broken picture: "),
    ],
)
def test_what_is_wrong_with_one_picture_rejects_the_row(written, world, images, question, reason):
    world.put("torn.jpg", world.pictures[PAIR[0]][:100])
    report, out = written(compared("p0", images, question))
    assert (report.records, report.rejected) == (3, 1)
    (row,) = map(json.loads, (out / "quarantine-train.jsonl").read_text().splitlines())
    assert row["id"] == "p0" and row["reason"].startswith(reason)
    assert picture_names(row["image"]) == tuple(images)
    assert "torn.jpg" in row["reason"] or images[1] != "torn.jpg"


def test_each_file_is_looked_for_once(world, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "data_pipeline.records.inputs.file_size", lambda path: looked.append(path.name) or 1
    )
    sizes = find_sizes(["\n".join(PAIR), PAIR[0], None, "\n".join(PAIR[::-1])], world.images)
    assert sizes == [(1, 1), (1,), (), (1, 1)]
    assert sorted(looked) == ["1.jpg", "2.png"]
