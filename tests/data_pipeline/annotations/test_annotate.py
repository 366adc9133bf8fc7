"""COCO captions, and scenes.jsonl with its report."""

import dataclasses
import json

import pytest

from data_pipeline.annotations.annotate import annotate
from data_pipeline.annotations.coco import read_captions
from data_pipeline.annotations.scene import (
    PixelBox,
    Region,
    Relation,
    Scene,
    SceneObject,
    read_scenes,
    scene_to_json,
    write_scenes,
)
from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine


def captions_file(path, *rows):
    annotations = [
        {"id": number, "image_id": coco_id, "caption": text}
        for number, (coco_id, text) in enumerate(rows)
    ]
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def test_captions_in_file_order(tmp_path):
    path = captions_file(tmp_path / "c.json", (5, "b "), (6, "x"), (5, "a\n"))
    assert read_captions(path, Quarantine(tmp_path / "bad")) == {5: ("b", "a"), 6: ("x",)}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "does not hold a JSON object"),
        ({"images": []}, 'no list "annotations"'),
        ({"annotations": []}, 'no list "annotations"'),
        ({"annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}, "not an instances"),
        ({"annotations": [7]}, "first entry: not a JSON object"),
    ],
)
def test_bad_captions_file_is_explained(tmp_path, content, told):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        read_captions(path, Quarantine(tmp_path / "bad"))


def test_a_bad_caption_among_good_ones_is_quarantined(tmp_path):
    rows = [{"image_id": 1, "caption": "a"}, {"image_id": 1}, {"image_id": 2, "caption": " "}]
    (tmp_path / "c.json").write_text(json.dumps({"annotations": rows}))
    quarantine = Quarantine(tmp_path / "bad")
    assert read_captions(tmp_path / "c.json", quarantine) == {1: ("a",)}
    assert [row["id"].split(", ")[1] for row in quarantine.rows] == ["annotation 2", "annotation 3"]


def write_world(folder, boxes):
    folder.mkdir(exist_ok=True)
    objects = [
        {"object_id": k, "names": ["cup"], "x": x, "y": y, "w": w, "h": h}
        for k, (x, y, w, h) in enumerate(boxes)
    ]
    rows = {
        "image_data": [
            {"image_id": 1, "url": "u/VG_100K/1.jpg", "width": 50, "height": 40, "coco_id": 5}
        ],
        "objects": [{"image_id": 1, "objects": objects}],
        "region_descriptions": [
            {"id": 1, "regions": [{"phrase": "a cup", "x": 1, "y": 1, "width": 4, "height": 4}]}
        ],
    }
    for name, value in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_annotate_writes_scenes_and_counts_everything(tmp_path):
    folder = write_world(tmp_path / "vg", [(0, 0, 5, 5), (50, 0, 5, 5), (1, 1, 2, 2)])
    first = captions_file(tmp_path / "a.json", (5, "one"), (5, "two"))
    second = captions_file(tmp_path / "b.json", (5, "not this"), (9, "nobody's"))
    out = tmp_path / "out" / "scenes.jsonl"
    report = annotate(folder, [first, second], out)
    assert (report.scenes, report.objects, report.regions, report.captions) == (1, 2, 1, 2)
    assert report.rejected == {"box is empty inside its picture": 1}
    assert report.unmatched == {} and report.merged == 0
    assert report.without == {"captions": 0, "objects": 0, "regions": 0, "anything": 0}
    (scene,) = read_scenes(out)
    assert scene.captions == ("one", "two")
    (line,) = (tmp_path / "out" / "scenes.rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "image 1, object 1 (cup)"


def test_annotate_real_sample(tmp_path, real_data):
    report = annotate(real_data / "visual_genome_sample", [], tmp_path / "scenes.jsonl")
    assert (report.scenes, report.objects, report.regions) == (5, 177, 1278)
    assert report.rejected == {} and report.unmatched == {}


def test_past_max_bad_nothing_is_written(tmp_path):
    folder = write_world(tmp_path / "vg", [(50, 0, 5, 5), (60, 0, 5, 5)])
    with pytest.raises(UserError, match="more than the 1 allowed"):
        annotate(folder, [], tmp_path / "scenes.jsonl", max_bad=1)
    assert not (tmp_path / "scenes.jsonl").exists()
    assert len((tmp_path / "scenes.rejected.jsonl").read_text().splitlines()) == 2


def test_a_folder_without_usable_records_is_an_error(tmp_path):
    folder = write_world(tmp_path / "vg", [])
    (folder / "region_descriptions.json").write_text("[]")
    with pytest.raises(UserError, match="no object, no region and no caption"):
        annotate(folder, [], tmp_path / "scenes.jsonl")


def test_captions_of_other_pictures_are_an_error(tmp_path):
    folder = write_world(tmp_path / "vg", [(0, 0, 5, 5)])
    captions = captions_file(tmp_path / "c.json", (1, "by the wrong id"))
    with pytest.raises(UserError, match="none of the 1 pictures in the captions files"):
        annotate(folder, [captions], tmp_path / "scenes.jsonl")
    assert not (tmp_path / "scenes.jsonl").exists()


def test_duplicates_are_kept_or_merged(tmp_path):
    folder = write_world(tmp_path / "vg", [(0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5)])
    kept = annotate(folder, [], tmp_path / "kept.jsonl")
    merged = annotate(folder, [], tmp_path / "merged.jsonl", merge_overlap=0.9)
    assert (kept.objects, kept.merged) == (3, 0)
    assert (merged.objects, merged.merged) == (2, 1)
    with pytest.raises(UserError, match=r"overlap of 1\.5"):
        annotate(folder, [], tmp_path / "never.jsonl", merge_overlap=1.5)


def test_scenes_are_read_as_they_were_written(tmp_path):
    scene = Scene(
        *(7, "a/b.jpg", 90, 60, 12),
        captions=("caf\u00e9", "b"),
        objects=(SceneObject(1, "cup", PixelBox(0, 1, 2, 3), ("red",)),),
        regions=(Region("a cup", PixelBox(4, 5, 6, 7)),),
        relations=(Relation(1, "on", 1),),
    )
    assert json.dumps(scene_to_json(scene)) == json.dumps(dataclasses.asdict(scene))
    write_scenes(tmp_path / "s.jsonl", [scene, Scene(8, "c.jpg", 1, 1)])
    assert list(read_scenes(tmp_path / "s.jsonl")) == [scene, Scene(8, "c.jpg", 1, 1)]
