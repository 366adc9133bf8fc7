"""The folder of a world: real formats, read back by the real readers; resume, reuse, refuse."""

import dataclasses
import json

import pytest
from PIL import Image

from data_pipeline.annotations.annotate import annotate
from data_pipeline.annotations.scene import read_scenes
from data_pipeline.common.errors import UserError
from data_pipeline.toy_world.generate import generate_world
from data_pipeline.toy_world.world import make_scene


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("split", "first", "number"), [("train", 1, 150), ("held_out", 1_000_000, 120)]
)
def test_annotations_read_back_as_the_scenes(world, tmp_path, split, first, number):
    root, _ = world
    folder = root / split
    captions = folder / "coco" / "captions_train2014.json"
    report = annotate(folder / "visual_genome", [captions], tmp_path / "scenes.jsonl")
    scenes = list(read_scenes(tmp_path / "scenes.jsonl"))
    assert report.rejected == {} and report.unmatched == {}
    assert [s.image_id for s in scenes] == list(range(first, first + number))
    with_captions = [s for s in scenes if s.captions]
    assert 0.3 < len(with_captions) / number < 0.7
    assert report.captions == 5 * len(with_captions)
    for scene in scenes:
        novel = scene.image_id >= 1_000_080
        toy = make_scene(scene.image_id, seed=5, novel=novel)
        assert (scene.image_file, scene.coco_id) == (f"VG_100K/{scene.image_id}.jpg", toy.coco_id)
        assert (scene.coco_id is None) == (scene.captions == ())
        assert len(set(scene.captions)) == len(scene.captions)
        assert [(o.object_id, o.name, o.box, o.attributes) for o in scene.objects] == [
            (o.object_id, o.shape, o.box, (o.size, o.colour)) for o in toy.objects
        ]
        assert all(relation.subject_id != relation.object_id for relation in scene.relations)
        with Image.open(folder / "images" / scene.image_file) as picture:
            assert (picture.format, picture.size) == ("JPEG", (scene.width, scene.height))


def test_regions_and_relations_are_true(world, tmp_path):
    root, _ = world
    annotate(root / "train" / "visual_genome", [], tmp_path / "scenes.jsonl")
    phrases = {
        "left of": ("to the left of", lambda a, b: a.x2 <= b.x1),
        "right of": ("to the right of", lambda a, b: a.x1 >= b.x2),
        "above": ("above", lambda a, b: a.y2 <= b.y1),
        "below": ("below", lambda a, b: a.y1 >= b.y2),
    }
    for scene in read_scenes(tmp_path / "scenes.jsonl"):
        by_id = {o.object_id: o for o in scene.objects}
        texts = [region.phrase for region in scene.regions]
        for thing, region in zip(scene.objects, scene.regions, strict=False):
            size, colour = thing.attributes
            article = "an" if size[0] in "aeiou" else "a"
            assert region.phrase.startswith(f"{article} {size} {colour} {thing.name} in the ")
            assert region.box == thing.box
        assert bool(scene.relations) == (len(scene.objects) > 1)
        assert len(texts) == len(scene.objects) + len(scene.relations)
        for relation, text in zip(scene.relations, texts[len(scene.objects) :], strict=True):
            one, other = by_id[relation.subject_id], by_id[relation.object_id]
            words, holds = phrases[relation.predicate]
            assert holds(one.box, other.box)
            subject, target = text.split(f" {words} ")
            assert subject.endswith(f"{one.attributes[1]} {one.name}")
            assert target.endswith(f"{other.attributes[1]} {other.name}")


def test_vqa_files_are_in_vqav2_format(world):
    root, report = world
    questions = read(root / "train" / "vqa" / "questions.json")
    annotations = read(root / "train" / "vqa" / "annotations.json")
    assert questions["task_type"] == "Open-Ended" and questions["data_subtype"] == "train2014"
    assert len(questions["questions"]) == report.vqa_questions["train"] == 12 * 150
    assert len({q["question_id"] for q in questions["questions"]}) == 12 * 150
    for question, row in zip(questions["questions"], annotations["annotations"], strict=True):
        assert question["image_file"] == f"VG_100K/{question['image_id']}.jpg"
        assert row["question_id"] == question["question_id"]
        assert [a["answer"] for a in row["answers"]] == [row["multiple_choice_answer"]] * 10
        assert row["answer_type"] == (
            "yes/no"
            if row["multiple_choice_answer"] in ("yes", "no")
            else "number"
            if row["multiple_choice_answer"].isdigit()
            else "other"
        )


def test_referring_boxes_are_on_the_padded_square(world):
    root, report = world
    rows = read(root / "held_out" / "benchmarks" / "referring" / "questions.json")
    pictures = {
        f"VG_100K/{row['image_id']}.jpg": row
        for row in read(root / "held_out" / "visual_genome" / "image_data.json")
    }
    objects = {
        f"VG_100K/{row['image_id']}.jpg": row["attributes"]
        for row in read(root / "held_out" / "visual_genome" / "attributes.json")
    }
    asked = sum(min(2, len(things)) for things in objects.values())
    assert len(rows) == report.benchmark_questions["referring"] == asked
    shapes = set()
    for row in rows:
        picture = pictures[row["image"]]
        width, height = picture["width"], picture["height"]
        shapes.add((width, height))
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        (thing,) = (
            o
            for o in objects[row["image"]]
            if row["text"].startswith(f"Where is the {o['attributes'][1]} {o['names'][0]}?")
        )
        expected = (
            (thing["x"] + left) / side,
            (thing["y"] + top) / side,
            (thing["x"] + thing["w"] + left) / side,
            (thing["y"] + thing["h"] + top) / side,
        )
        assert row["boxes"] == [pytest.approx(expected, abs=5.1e-4)]
    assert len(shapes) == 3


def test_gqa_rows_tell_their_type(world):
    root, _ = world
    rows = read(root / "held_out" / "benchmarks" / "gqa" / "questions.json")
    for key, row in rows.items():
        assert key.isdigit() and row["imageId"].isdigit() and row["isBalanced"] is True
        closed = row["answer"] in ("yes", "no")
        assert row["types"]["structural"] == ("verify" if closed else "query")
        assert row["types"]["semantic"] in {"attr", "cat", "rel"}
        assert row["answer"] in row["fullAnswer"].lower()


SMALL = {"train_scenes": 6, "held_out_scenes": 4, "novel_scenes": 2, "seed": 1}


def snapshot(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_same_settings_give_the_same_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    generate_world(one, **SMALL)
    generate_world(other, **SMALL)
    assert snapshot(one) == snapshot(other)


def test_a_finished_world_is_left_alone(tmp_path):
    first = generate_world(tmp_path, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = generate_world(tmp_path, **SMALL)
    assert not first.already_there
    assert again == dataclasses.replace(first, already_there=True)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_an_interrupted_world_goes_on(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    generate_world(whole, **SMALL)
    root = tmp_path / "cut"

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_pipeline.toy_world.generate.write_benchmarks", cut)
        with pytest.raises(KeyboardInterrupt):
            generate_world(root, **SMALL)
    assert not generate_world(root, **SMALL).already_there
    assert snapshot(root) == snapshot(whole)


def test_another_world_in_the_folder_is_refused(tmp_path):
    generate_world(tmp_path, **SMALL)
    with pytest.raises(UserError, match="seed 1 instead of 2"):
        generate_world(tmp_path, **(SMALL | {"seed": 2}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_scenes": 0}, "train_scenes is 0"),
        ({"novel_scenes": -1}, "novel_scenes is -1"),
        ({"train_scenes": 1_000_000}, "fewer than 1000000"),
    ],
)
def test_impossible_settings_are_explained(tmp_path, change, told):
    with pytest.raises(UserError, match=told):
        generate_world(tmp_path, **(SMALL | change))
    assert not list(tmp_path.iterdir())
