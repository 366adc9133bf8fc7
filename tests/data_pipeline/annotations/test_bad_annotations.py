"""Whatever JSON stands in annotation files, each entry is used or rejected, and nothing crashes."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.annotations.coco import read_captions, read_coco_instances
from data_pipeline.annotations.own import read_own
from data_pipeline.annotations.picture_size import PictureSizes
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine

KEY_TEXT = """
    id image_id url width height coco_id objects regions object_id names name x y w h phrase bbox
    box merged_object_ids attributes object subject subject_id predicate category_id file_name image
    captions caption iscrowd relationships
"""
KEYS = st.sampled_from(KEY_TEXT.split())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 60)
    | st.sampled_from([0.5, -1e308, 1e308, "a", "", "x/1.jpg", "../1.jpg", "http://u/V/1.jpg"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=12,
)
GOOD_BOX = {"x": 1, "y": 1, "w": 3, "h": 3, "width": 3, "height": 3, "bbox": [1, 1, 3, 3]}
ENTRIES = st.lists(
    VALUES
    | st.builds(
        lambda good, odd: {**good, **odd},
        st.just({"object_id": 5, "names": ["cup"], "phrase": "a cup", **GOOD_BOX}),
        st.dictionaries(KEYS, VALUES, max_size=2),
    ),
    max_size=4,
)
PICTURE = {"image_id": 1, "url": "http://u/V/1.jpg", "width": 50, "height": 40, "coco_id": 9}


@settings(max_examples=50, deadline=None)
@given(ENTRIES, ENTRIES, ENTRIES, ENTRIES, VALUES)
def test_visual_genome(objects, regions, attributes, relations, extra):
    lists = {
        "objects": objects,
        "regions": regions,
        "attributes": attributes,
        "relationships": relations,
    }
    names = {"regions": "region_descriptions"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "image_data.json").write_text(json.dumps([PICTURE, extra]))
        for key, entries in lists.items():
            rows = [{"image_id": 1, key: entries}, extra]
            (Path(folder) / f"{names.get(key, key)}.json").write_text(json.dumps(rows))
        quarantine, unmatched = Quarantine(Path(folder) / "bad"), Counter()
        scene, *_ = read_visual_genome(folder, None, quarantine, unmatched)
    rejected = Counter(
        next(word for word in ("object", "region", "attribute", "relation") if word in place)
        for place in (row["id"].removeprefix("image 1, ") for row in quarantine.rows)
        if place[:5] in ("objec", "regio", "attri", "relat") and "row 2" not in place
    )
    assert len(scene.objects) + rejected["object"] == len(objects)
    assert len(scene.regions) + rejected["region"] == len(regions)
    assert len(scene.relations) + rejected["relation"] + unmatched["relations"] == len(relations)
    for item in (*scene.objects, *scene.regions):
        assert 0 <= item.box.x1 < item.box.x2 <= 50 and 0 <= item.box.y1 < item.box.y2 <= 40


@settings(max_examples=50, deadline=None)
@given(ENTRIES, ENTRIES, ENTRIES)
def test_coco(images, annotations, categories):
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 50, "height": 40}, *images],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}, *categories],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i.json"
        path.write_text(json.dumps(content))
        quarantine = Quarantine(Path(folder) / "bad")
        scenes = list(read_coco_instances(path, {}, quarantine))
        try:
            read_captions(path, quarantine)
        except UserError as error:
            assert str(path) in str(error)
    assert scenes[0].image_id == 1
    places = [row["id"].split(", ")[-1].split(" ")[0] for row in quarantine.rows]
    assert len(scenes) + places.count("image") >= 1 + len(images)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES | st.dictionaries(KEYS, VALUES).map(lambda odd: {**odd, "image": "1.jpg"})))
def test_own(rows):
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (50, 40)).save(Path(folder) / "1.jpg")
        path = Path(folder) / "own.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        quarantine = Quarantine(Path(folder) / "bad")
        scenes = list(read_own(path, PictureSizes(folder), quarantine))
    whole_rows = [row for row in quarantine.rows if row["id"].count(",") == 1]
    assert len(scenes) + len(whole_rows) == len(rows)
