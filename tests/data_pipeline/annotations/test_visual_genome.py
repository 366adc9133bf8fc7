"""The real sample's scenes, the join in any order, the versions' variants, and bad input."""

import itertools
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import PixelBox, Region, Relation, SceneObject
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.quarantine import Quarantine


def picture(image_id, **changes):
    return {
        "image_id": image_id,
        "url": f"https://toy.invalid/VG_100K/{image_id}.jpg",
        "width": 100,
        "height": 80,
        "coco_id": None,
    } | changes


def thing(object_id, name="cup", box=(10, 20, 30, 40), **changes):
    x, y, w, h = box
    return {"object_id": object_id, "names": [name], "x": x, "y": y, "w": w, "h": h} | changes


def region(phrase, box=(0, 0, 5, 5)):
    x, y, w, h = box
    return {"region_id": 1, "phrase": phrase, "x": x, "y": y, "width": w, "height": h}


def write_folder(folder: Path, pictures, objects, regions, attributes=None, relations=None):
    files = {
        "image_data": pictures,
        "objects": [{"image_id": k, "objects": v} for k, v in objects],
        "region_descriptions": [{"id": k, "regions": v} for k, v in regions],
    }
    if attributes is not None:
        files["attributes"] = [{"image_id": k, "attributes": v} for k, v in attributes]
    if relations is not None:
        files["relationships"] = [{"image_id": k, "relationships": v} for k, v in relations]
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


def simple_folder(folder, pictures=(1,), **objects):
    return write_folder(
        folder,
        [picture(k) for k in pictures],
        [(k, [thing(10 * k)]) for k in pictures],
        [(k, [region("a cup")]) for k in pictures],
    )


def test_real_sample(real_data):
    folder = real_data / "visual_genome_sample"
    scenes = list(read_visual_genome(folder))
    assert [s.image_id for s in scenes] == [1, 2, 3, 4, 5]
    first = scenes[0]
    assert (first.width, first.height, first.image_file) == (800, 600, "VG_100K_2/1.jpg")
    assert scenes[1].image_file == "VG_100K/2.jpg"
    assert first.objects[0] == SceneObject(
        1058498, "clock", PixelBox(421, 91, 500, 430), ("green", "tall")
    )
    assert [len(s.objects) for s in scenes] == [40, 27, 52, 24, 34]
    assert [len(s.regions) for s in scenes] == [262, 256, 255, 257, 248]
    assert [len(s.relations) for s in scenes] == [41, 23, 50, 16, 28]
    assert first.regions[0] == Region("the clock is green in colour", PixelBox(421, 57, 503, 196))
    assert first.relations[0] == Relation(5045, "ON", 5046)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_join_is_right_in_any_order(tmp_path, order):
    write_folder(
        tmp_path,
        [picture(k) for k in (1, 2, 3)],
        [(k, [thing(10 * k)]) for k in order],
        [(k, [region(f"of {k}")]) for k in reversed(order)],
        attributes=[(k, [thing(10 * k, attributes=[f"a{k}"])]) for k in order if k != 2],
    )
    scenes = {s.image_id: s for s in read_visual_genome(tmp_path)}
    assert set(scenes) == {1, 2, 3}
    for k, scene in scenes.items():
        assert scene.objects[0].object_id == 10 * k
        assert scene.objects[0].attributes == (() if k == 2 else (f"a{k}",))
        assert scene.regions[0].phrase == f"of {k}"


def test_same_order_holds_back_nothing(tmp_path):
    write_folder(
        tmp_path,
        [picture(k) for k in range(50)],
        [(k, []) for k in range(50)],
        [(k, []) for k in range(50)],
    )
    with (tmp_path / "objects.json").open("a") as file:
        file.write("damaged end")
    scenes = read_visual_genome(tmp_path)
    assert [next(scenes).image_id for _ in range(40)] == list(range(40))


def test_a_picture_without_objects_still_is_a_scene(tmp_path):
    write_folder(tmp_path, [picture(1), picture(2)], [(2, [thing(20)])], [(1, [region("a cup")])])
    scenes = {s.image_id: s for s in read_visual_genome(tmp_path)}
    assert scenes[1].objects == () and scenes[1].regions[0].phrase == "a cup"
    assert scenes[2].regions == () and scenes[2].objects[0].object_id == 20


def test_version_1_0_variants(tmp_path):
    shared = {"x": 1, "y": 2, "w": 3, "h": 4}
    rows = {
        "image_data": [{"id": 7, "url": "http://a/VG_100K_2/7.jpg", "width": 9, "height": 9}],
        "objects": [{"id": 7, "objects": [{"id": 70, "name": "cup", "synsets": [], **shared}]}],
        "region_descriptions": [
            {"image_id": 7, "regions": [{"id": 1, "image": 7, "phrase": " a cup ", **shared}]}
        ],
        "attributes": [
            {
                "id": 7,
                "attributes": [
                    {"object_id": 70, "object_names": ["cup"], "attributes": ["red", "red"]},
                    {"id": 5, "attribute": "old", "object": {"id": 70, "name": "cup"}},
                ],
            }
        ],
        "relationships": [
            {
                "id": 7,
                "relationships": [
                    {"predicate": "near", "subject": {"id": 70}, "object": {"id": 70}},
                    {"predicate": "by", "subject_id": 70, "object_id": 70},
                ],
            }
        ],
    }
    for name, value in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (scene,) = read_visual_genome(tmp_path)
    assert scene.objects == (SceneObject(70, "cup", PixelBox(1, 2, 4, 6), ("red", "old")),)
    assert scene.regions == (Region("a cup", PixelBox(1, 2, 4, 6)),)
    assert scene.relations == (Relation(70, "near", 70), Relation(70, "by", 70))


def test_version_1_4_merged_objects_take_their_attributes_and_relations(tmp_path):
    write_folder(
        tmp_path,
        [picture(1)],
        [(1, [thing(10, merged_object_ids=[11, 12]), thing(20, "man")])],
        [(1, [])],
        attributes=[
            (1, [thing(11, attributes=["red"]), thing(10, attributes=["tall", "red"]), thing(99)])
        ],
        relations=[
            (
                1,
                [
                    {"predicate": "holds", "subject": thing(20), "object": thing(12)},
                    {"predicate": "holds", "subject": thing(20), "object": thing(77)},
                ],
            )
        ],
    )
    unmatched = Counter()
    (scene,) = read_visual_genome(tmp_path, unmatched=unmatched)
    assert scene.objects[0].attributes == ("red", "tall")
    assert scene.relations == (Relation(20, "holds", 10),)
    assert unmatched == {"relations": 1}


def test_captions_join_by_coco_id(tmp_path):
    write_folder(
        tmp_path, [picture(1, coco_id=500), picture(2)], [(1, []), (2, [])], [(1, []), (2, [])]
    )
    first, second = read_visual_genome(tmp_path, {500: ("a cup", "two cups"), 1: ("wrong",)})
    assert (first.coco_id, first.captions) == (500, ("a cup", "two cups"))
    assert (second.coco_id, second.captions) == (None, ())


def test_boxes_are_clipped_and_empty_ones_counted(tmp_path):
    write_folder(
        tmp_path,
        [picture(1)],
        [
            (
                1,
                [
                    thing(10, box=(-5, -6, 20, 20)),
                    thing(11, box=(90, 70, 50, 50)),
                    thing(12, box=(100, 10, 5, 5)),
                    thing(13, box=(5, 5, 0, 5)),
                ],
            )
        ],
        [(1, [region("above", (0, -10, 5, 5)), region("in", (1.4, 1.6, 2, 2))])],
    )
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    (scene,) = read_visual_genome(tmp_path, quarantine=quarantine)
    assert [o.box for o in scene.objects] == [(0, 0, 15, 14), (90, 70, 100, 80)]
    assert [r.box for r in scene.regions] == [(1, 2, 3, 4)]
    assert quarantine.counts() == {"box is empty inside its picture": 3}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"names": ["cup"], "x": 1, "y": 1, "w": 1, "h": 1}, "missing key"),
        (thing(10) | {"x": "12"}, '"x" is not a number'),
        (thing(10) | {"names": []}, '"names" or "name" holds no name'),
        (thing(10) | {"object_id": 1.5}, '"object_id" is not an integer'),
        (thing(10) | {"x": 1e300}, '"x" is too large a number'),
        (thing(10) | {"names": [["cup"]]}, '"names" is not a list of texts'),
        (thing(10) | {"merged_object_ids": [{}]}, '"merged_object_ids" is not a list of ids'),
        ("cup", "not a JSON object"),
    ],
)
def test_bad_object_is_quarantined_with_its_place(tmp_path, entry, reason):
    write_folder(tmp_path, [picture(1)], [(1, [thing(20), entry])], [(1, [])])
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    (scene,) = read_visual_genome(tmp_path, quarantine=quarantine)
    assert [o.object_id for o in scene.objects] == [20]
    assert quarantine.counts() == {reason: 1}
    assert quarantine.rows[0]["id"] == "image 1, objects.json row 1, entry 2"
    with pytest.raises(BadRecordError, match="entry 2"):
        list(read_visual_genome(tmp_path))


def test_bad_pictures_are_quarantined(tmp_path):
    write_folder(
        tmp_path,
        [picture(1), picture(2, width=0), picture(1), picture(3) | {"url": 5}, {"url": "x"}],
        [(1, [thing(10)]), (2, [thing(20)]), (3, []), (4, [])],
        [(1, [])],
    )
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    scenes = list(read_visual_genome(tmp_path, quarantine=quarantine))
    assert [s.image_id for s in scenes] == [1]
    assert quarantine.counts() == {
        "picture size is not positive": 1,
        "image id seen before in this file": 1,
        '"url" is not a text': 1,
        "missing key": 1,
        "no entry in image_data.json": 1,
    }


@pytest.mark.parametrize("url", ["http://a/../1.jpg", "http://a/VG_100K/", "1.jpg", "a/..\\\\b"])
def test_urls_that_name_no_picture_are_quarantined(tmp_path, url):
    write_folder(tmp_path, [picture(1), picture(2, url=url)], [(1, [])], [(1, [])])
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    assert [s.image_id for s in read_visual_genome(tmp_path, quarantine=quarantine)] == [1]
    assert len(quarantine) == 1 and '"url"' in quarantine.rows[0]["reason"]


def zip_up(folder, name, inner, outer):
    with zipfile.ZipFile(folder / outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / f"{name}.json", inner)
        archive.writestr(f"__MACOSX/._{inner}", "shadow")
    (folder / f"{name}.json").unlink()


def test_files_as_downloaded_are_read(tmp_path):
    simple_folder(tmp_path, (1, 2))
    plain = list(read_visual_genome(tmp_path))
    zip_up(tmp_path, "image_data", "image_data.json", "image_data.json.zip")
    zip_up(tmp_path, "objects", "objects.json", "objects_v1_2.json.zip")
    (tmp_path / "region_descriptions.json").rename(tmp_path / "region_descriptions_v1.json")
    assert list(read_visual_genome(tmp_path)) == plain
    (tmp_path / "objects_v1_4.json.zip").write_bytes(b"")
    with pytest.raises(UserError, match="several versions"):
        list(read_visual_genome(tmp_path))


def test_damaged_archives_are_named(tmp_path):
    simple_folder(tmp_path)
    zip_up(tmp_path, "objects", "objects.json", "objects.json.zip")
    whole = (tmp_path / "objects.json.zip").read_bytes()
    for content in (b"", whole[:60], whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1)):
        (tmp_path / "objects.json.zip").write_bytes(content)
        with pytest.raises(UserError, match=r"objects\.json\.zip"):
            list(read_visual_genome(tmp_path))


def test_missing_file_is_named(tmp_path):
    simple_folder(tmp_path)
    (tmp_path / "region_descriptions.json").unlink()
    with pytest.raises(UserError, match=r"region_descriptions\.json"):
        list(read_visual_genome(tmp_path))
    with pytest.raises(UserError, match="there is no folder"):
        list(read_visual_genome(tmp_path / "absent"))


@pytest.mark.parametrize(
    "content", ['[{"image_id": 1, "objects": [', '{"image_id": 1}', "", "[1 2]"]
)
def test_malformed_file_is_named(tmp_path, content):
    simple_folder(tmp_path)
    (tmp_path / "objects.json").write_text(content)
    with pytest.raises(UserError, match=r"objects\.json"):
        list(read_visual_genome(tmp_path))
