"""The Beam pipeline, on Beam's direct runner: the very files that `write_dataset` writes."""

import json

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.records.target import Target
from data_pipeline.records.writer import write_dataset

pytest.importorskip("apache_beam")
from data_pipeline.records.beam_pipeline import write_dataset_with_beam


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_direct_runner_writes_the_same_bytes(world):
    world.put("VG_100K/broken.jpg", b"no picture")
    rows = [
        world.row("c0", "VG_100K/broken.jpg", "What?", "This."),
        world.row("c1", "VG_100K/missing.jpg", "What?", "That."),
        {"id": "c2"},
        world.row("c3", "VG_100K/1.jpg", "And?", "So."),
        {
            **world.row("c4", None, "<image>\n<image>\nWhich?", "This."),
            "image": ["VG_100K/2.png", "VG_100K/1.jpg"],
        },
        {
            **world.row("c5", None, "<image>\n<image>\nWhich?", "That."),
            "image": ["VG_100K/2.png", "VG_100K/missing.jpg"],
        },
    ]
    paths = [*world.paths, world.write("odd.json", rows)]
    local, on_beam = world.root / "local", world.root / "beam"
    expected = write_dataset(paths, world.images, local, "toy", shards=3)
    assert (expected.records, expected.dialogues, expected.rejected) == (5, 8, 4)
    target = Target(str(on_beam), "toy", shards=3)
    report = write_dataset_with_beam(paths, world.images, target, "DirectRunner")
    assert contents(on_beam) == contents(local)
    assert report.fingerprint == expected.fingerprint and not report.unchanged
    assert report.reasons == expected.reasons

    assert write_dataset_with_beam(paths, world.images, target, "DirectRunner").unchanged
    assert contents(on_beam) == contents(local)


def test_what_a_user_can_mend_is_a_user_error(world):
    target = Target(str(world.root / "out"), "toy")
    path = world.root / "cut.json"
    path.write_text(json.dumps(world.rows_a)[:-9])
    with pytest.raises(UserError, match="is not valid JSON"):
        write_dataset_with_beam([path], world.images, target, "DirectRunner")
    with pytest.raises(UserError, match="holds none of the 3 pictures"):
        write_dataset_with_beam(world.paths, world.root, target, "DirectRunner")
    assert not (world.root / "out" / "dataset_info.json").exists()
