"""Pictures made ready once: what training sees of them, against resizing them at load."""

import json

import numpy as np
import pytest
from pictures import picture_file

from data_pipeline.common.errors import UserError
from data_pipeline.images.transforms import prepare
from data_pipeline.records.pictures import Resize
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset

SIZE = 56


@pytest.fixture
def photos(world):
    """Pictures as photographs are: waves and noise, one lying, one standing, one square."""
    sides = {"lying": (160, 90), "standing": (70, 150), "square": (SIZE, SIZE)}
    for seed, (name, (width, height)) in enumerate(sides.items()):
        world.put(f"{name}.jpg", picture_file("RGB jpeg", width, height, seed))
    world.paths = [
        world.write(
            "photos.json",
            [world.row(n, f"{n}.jpg", "What?", "This.") for n in ("lying", "standing", "square")],
        )
    ]
    return world


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_png_gives_training_the_very_pixels(photos, mode):
    out = photos.root / mode
    write_dataset(photos.paths, photos.images, out, "toy", resize=Resize(SIZE, mode))
    for entry, record in zip(open_records(out).entries, open_records(out), strict=True):
        assert entry.sizes == ((SIZE, SIZE),)
        own = (photos.images / record.image_id).read_bytes()
        np.testing.assert_array_equal(
            prepare(record.images[0], SIZE, mode, "stored"), prepare(own, SIZE, mode, "own")
        )


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_jpeg_is_near_and_smaller(photos, mode):
    sizes = {}
    for kind in ("png", "jpeg"):
        out = photos.root / kind
        write_dataset(photos.paths, photos.images, out, "toy", resize=Resize(SIZE, mode, kind))
        sizes[kind] = sum(len(record.images[0]) for record in open_records(out))
    for record in open_records(photos.root / "jpeg"):
        own = (photos.images / record.image_id).read_bytes()
        difference = np.abs(
            prepare(record.images[0], SIZE, mode, "stored").astype(int)
            - prepare(own, SIZE, mode, "own")
        )
        # Of 255 levels; the noise in these pictures is the worst case, photographs differ by 1.
        assert 0 < difference.mean() < 3
    assert sizes["jpeg"] < sizes["png"]


def test_a_resized_dataset_is_another_one(photos):
    out = photos.root / "out"
    plain = write_dataset(photos.paths, photos.images, photos.root / "plain", "toy")
    small = write_dataset(photos.paths, photos.images, out, "toy", resize=Resize(SIZE))
    assert plain.fingerprint != small.fingerprint
    header = json.loads((out / "manifest-train.jsonl").read_text().splitlines()[0])
    assert header["resize"] == {"size": SIZE, "mode": "pad", "format": "png"}
    assert open_records(out).header.resize == Resize(SIZE)
    with pytest.raises(UserError, match="made from other inputs"):
        write_dataset(photos.paths, photos.images, out, "toy", resize=Resize(SIZE + 1))


def test_broken_pictures_are_quarantined_as_they_are_without_resizing(photos):
    photos.put("standing.jpg", b"no picture")
    out = photos.root / "out"
    report = write_dataset(photos.paths, photos.images, out, "toy", resize=Resize(SIZE))
    assert report.reasons == {"broken picture": 1}
    assert [record.image_id for record in open_records(out)] == ["lying.jpg", "square.jpg"]


def test_a_size_of_no_pixels_is_a_user_error():
    with pytest.raises(UserError, match="can't be resized to 0 pixels"):
        Resize(0)
