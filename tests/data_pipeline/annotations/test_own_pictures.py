"""A user's own pictures: COCO's instances format, and a JSON line a picture."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline.annotations.annotate import annotate_coco, annotate_own
from data_pipeline.annotations.picture_size import PictureSizes
from data_pipeline.annotations.scene import PixelBox, Region, Scene, SceneObject, read_scenes
from data_pipeline.common.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "cats").mkdir(parents=True)
    Image.new("RGB", (90, 60)).save(folder / "cats" / "1.jpg")
    Image.new("L", (30, 40)).save(folder / "2.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def captions_file(path, *captions):
    rows = [{"image_id": image_id, "caption": text} for image_id, text in captions]
    path.write_text(json.dumps({"annotations": rows}))
    return path


def instances(path, **changes):
    content = {
        "info": {},
        "images": [
            {"id": 5, "file_name": "cats/1.jpg", "width": 90, "height": 60},
            {"id": 3, "file_name": "2.png", "width": 30, "height": 40},
        ],
        "annotations": [
            {"id": 70, "image_id": 3, "category_id": 2, "bbox": [1.2, 2.6, 3.1, 4.0]},
            {"id": 71, "image_id": 5, "category_id": 1, "bbox": [80, 50, 30, 30], "iscrowd": 0},
            {"id": 72, "image_id": 3, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 73, "image_id": 3, "category_id": 1, "bbox": [5, 5, 1, 1]},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path.write_text(json.dumps(content | changes))
    return path


def reasons(report):
    rows = [json.loads(line) for line in Path(report.quarantine).read_text().splitlines()]
    assert len(rows) == sum(report.rejected.values())
    return {row["id"].split("/")[-1]: row["reason"] for row in rows}


def test_coco_instances_become_scenes(tmp_path, pictures):
    captions = captions_file(tmp_path / "c.json", (3, "a dog"), (9, "nobody's"))
    report = annotate_coco(
        instances(tmp_path / "i.json"), [captions], tmp_path / "s.jsonl", images=pictures
    )
    assert list(read_scenes(tmp_path / "s.jsonl")) == [
        Scene(
            *(5, "cats/1.jpg", 90, 60), objects=(SceneObject(71, "cat", PixelBox(80, 50, 90, 60)),)
        ),
        Scene(
            *(3, "2.png", 30, 40),
            captions=("a dog",),
            objects=(
                SceneObject(70, "dog", PixelBox(1, 3, 4, 7)),
                SceneObject(73, "cat", PixelBox(5, 5, 6, 6)),
            ),
            regions=(Region("a group of cat", PixelBox(0, 0, 9, 9)),),
        ),
    ]
    assert report.rejected == {}
    assert report.without == {"captions": 1, "objects": 0, "regions": 1, "anything": 0}


def test_bad_coco_entries_are_quarantined_each_with_its_place(tmp_path, pictures):
    path = instances(
        tmp_path / "i.json",
        images=[
            {"id": 5, "file_name": "cats/1.jpg", "width": 60, "height": 90},
            {"id": 3, "file_name": "2.png", "width": 30, "height": 40},
            {"id": 3, "file_name": "2.png", "width": 30, "height": 40},
            {"id": 6, "file_name": "../2.png", "width": 30, "height": 40},
            {"id": 7, "file_name": "absent.png", "width": 30, "height": 40},
            {"id": 8, "file_name": "broken.jpg", "width": 30, "height": 40},
            {"id": 9, "file_name": "2.png", "width": 0, "height": 40},
        ],
        annotations=[
            {"id": 70, "image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4]},
            {"id": 71, "image_id": 5, "category_id": 1, "bbox": [80, 50, 30, 30]},
            {"id": 72, "image_id": 3, "category_id": 4, "bbox": [1, 2, 3, 4]},
            {"id": 73, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3]},
            {"id": 74, "image_id": 3, "category_id": 1, "bbox": [50, 2, 3, 3]},
            {"id": 75, "image_id": "3", "category_id": 1, "bbox": [1, 2, 3, 4]},
        ],
        categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 4, "name": ""}],
    )
    report = annotate_coco(path, [], tmp_path / "s.jsonl", images=pictures)
    assert [s.image_id for s in read_scenes(tmp_path / "s.jsonl")] == [3]
    told = reasons(report)
    expected = {
        "i.json, image 1": "picture size differs: cats/1.jpg is 90x60, the file says 60x90",
        "i.json, image 3": "image id seen before",
        "i.json, image 4": '"file_name" is not a path within',
        "i.json, image 5": "missing picture",
        "i.json, image 6": "broken picture",
        "i.json, image 7": "picture size is not positive",
        "i.json, category 3": '"name" is not a text',
        "i.json, annotation 3": '"category_id" is not in categories: 4',
        "i.json, annotation 4": '"bbox" is not a list of four numbers',
        "i.json, annotation 6": '"image_id" is not a number',
        "image 3, annotation 74 (cat)": "box is empty inside its picture",
        "image 5": "no usable entry in images: 1 annotations left out",
    }
    assert told.keys() == expected.keys()
    for place, reason in expected.items():
        assert told[place].startswith(reason)


def test_a_captions_file_is_no_instances_file(tmp_path):
    with pytest.raises(UserError, match='no list "images" with pictures'):
        annotate_coco(captions_file(tmp_path / "c.json", (1, "a")), [], tmp_path / "s.jsonl")


def own_file(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_line_a_picture_becomes_scenes(tmp_path, pictures):
    path = own_file(
        tmp_path / "own.jsonl",
        {
            "image": "cats/1.jpg",
            "captions": ["A cat.", " A cat sits. "],
            "objects": [{"name": "cat", "box": [10, 5.4, 95, 50], "attributes": ["grey"]}],
            "regions": [{"phrase": "a grey cat", "box": [1, 1, 2, 2]}],
        },
        {"image": "2.png", "image_id": 40, "captions": "A dog."},
    )
    report = annotate_own(path, pictures, tmp_path / "s.jsonl")
    assert list(read_scenes(tmp_path / "s.jsonl")) == [
        Scene(
            *(1, "cats/1.jpg", 90, 60),
            captions=("A cat.", "A cat sits."),
            objects=(SceneObject(1, "cat", PixelBox(10, 5, 90, 50), ("grey",)),),
            regions=(Region("a grey cat", PixelBox(1, 1, 2, 2)),),
        ),
        Scene(40, "2.png", 30, 40, captions=("A dog.",)),
    ]
    assert report.without == {"captions": 0, "objects": 1, "regions": 1, "anything": 0}


def test_bad_lines_and_entries_are_quarantined_each_with_its_place(tmp_path, pictures):
    good = {"image": "2.png", "captions": ["A dog."]}
    path = own_file(
        tmp_path / "own.jsonl",
        good
        | {
            "objects": [
                {"name": "dog"},
                {"name": "dog", "box": [0.1, 0.2, 0.3, 0.4]},
                {"name": "dog", "box": [8, 8, 4, 9]},
                {"name": "dog", "box": [1, 1, 9, 9], "attributes": [1]},
                {"name": "dog", "box": [1, 1, 9, 9]},
            ],
            "regions": ["a dog", {"phrase": "a dog", "bbox": [1, 1, 2, 2]}],
        },
        good,
        {"image": "/etc/passwd"},
        {"image": "cats/../../x.jpg"},
        {"image": "absent.jpg"},
        {"image": "broken.jpg"},
        {"image": "cats/1.jpg", "caption": "A cat."},
        {"image": "cats/1.jpg", "objects": {}},
        {"captions": ["A cat."]},
        7,
    )
    report = annotate_own(path, pictures, tmp_path / "s.jsonl")
    (scene,) = read_scenes(tmp_path / "s.jsonl")
    assert scene.objects == (SceneObject(5, "dog", PixelBox(1, 1, 9, 9)),)
    told = reasons(report)
    expected = {
        "row 1, object 1": 'missing key: "box"',
        "row 1, object 2": '"box" is in fractions',
        "row 1, object 3": "box is empty inside its picture",
        "row 1, object 4": '"attributes" is not a list of texts',
        "row 1, region 1": "not a JSON object",
        "row 1, region 2": 'unknown key: "bbox"',
        "row 2": "picture seen before",
        "row 3": '"image" is not a path within',
        "row 4": '"image" is not a path within',
        "row 5": "missing picture",
        "row 6": "broken picture",
        "row 7": 'unknown key: "caption"; known are: image, ',
        "row 8": '"objects" is not a list',
        "row 9": 'missing key: "image"',
        "row 10": "not a JSON object",
    }
    assert {place.removeprefix("own.jsonl, ") for place in told} == expected.keys()
    for place, reason in expected.items():
        assert told[f"own.jsonl, {place}"].startswith(reason)


def test_files_that_cannot_be_used_are_named(tmp_path, pictures):
    (tmp_path / "own.jsonl").write_text('{"image": "2.png", "captions": ["a"]}\n{"image": ')
    with pytest.raises(UserError, match=r"own\.jsonl, line 2"):
        annotate_own(tmp_path / "own.jsonl", pictures, tmp_path / "s.jsonl")
    (tmp_path / "own.jsonl").write_text('{"image": "2.png"}\n')
    with pytest.raises(UserError, match="no object, no region and no caption"):
        annotate_own(tmp_path / "own.jsonl", pictures, tmp_path / "s.jsonl")
    with pytest.raises(UserError, match="no folder"):
        annotate_own(tmp_path / "own.jsonl", tmp_path / "absent", tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()


def test_sizes_of_every_form_in_a_process_that_opened_no_picture_yet(tmp_path):
    forms = ("webp", "jpeg", "png", "gif", "bmp")
    for form in forms:
        Image.new("RGB", (31, 17)).save(tmp_path / f"a.{form}")
    code = (
        "import sys; from data_pipeline.annotations.picture_size import PictureSizes\n"
        "sizes = PictureSizes(sys.argv[1])\n"
        "print({sizes.of(f'a.{form}') for form in sys.argv[2:]})"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *forms]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "{(31, 17)}\n"


def test_sizes_are_those_of_the_stored_pixels(tmp_path):
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (31, 17)).save(tmp_path / "a.jpg", exif=turned)
    assert PictureSizes(tmp_path).of("a.jpg") == (31, 17)
