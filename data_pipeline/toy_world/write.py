"""Toy scenes in the files of real data: Visual Genome, COCO captions, VQAv2, pictures."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from data_pipeline.common.files import open_atomic, write_text
from data_pipeline.common.progress import progress
from data_pipeline.toy_world.descriptions import captions_of, object_phrase, relations_of
from data_pipeline.toy_world.draw import encode_scene
from data_pipeline.toy_world.questions import Question
from data_pipeline.toy_world.world import ToyObject, ToyScene

Row = dict[str, Any]

_ANNOTATORS = 10
_IDS_PER_SCENE = 1000


def write_compact_json(path: epath.Path, value: Any) -> None:
    """Writes without indents: json's fast encoder, and a third of the bytes."""
    write_text(path, json.dumps(value, ensure_ascii=False))


def write_bytes(path: epath.Path, data: bytes) -> None:
    with open_atomic(path, "wb") as file:
        file.write(data)


def write_pictures(folder: epath.Path, scenes: Sequence[ToyScene], skip_existing: bool) -> None:
    """Draws `folder/VG_100K/<id>.jpg` for each scene."""
    for scene in progress(scenes, f"drawing into {folder.parent.name}", unit="picture"):
        path = folder / scene.image_file
        if not (skip_existing and path.exists()):
            write_bytes(path, encode_scene(scene))


def write_visual_genome(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> None:
    """Writes the five official files of version 1.2."""
    pictures, objects, attributes, regions, relationships = [], [], [], [], []
    for scene in scenes:
        key = {"image_id": scene.image_id}
        relations = relations_of(scene, seed)
        pictures.append(
            {
                **key,
                "url": f"https://toy.invalid/{scene.image_file}",
                "width": scene.width,
                "height": scene.height,
                "coco_id": scene.coco_id,
                "flickr_id": None,
            }
        )
        objects.append({**key, "objects": [_object_row(o) for o in scene.objects]})
        attributes.append(
            {
                **key,
                "attributes": [
                    _object_row(o) | {"attributes": [o.size, o.colour]} for o in scene.objects
                ],
            }
        )
        boxes = [(object_phrase(o), o.box) for o in scene.objects]
        boxes += [(relation.phrase, relation.box) for relation in relations]
        regions.append(
            {
                "id": scene.image_id,
                "regions": [
                    {
                        "region_id": _IDS_PER_SCENE * scene.image_id + number,
                        **key,
                        "phrase": phrase,
                        "x": box.x1,
                        "y": box.y1,
                        "width": box.x2 - box.x1,
                        "height": box.y2 - box.y1,
                    }
                    for number, (phrase, box) in enumerate(boxes)
                ],
            }
        )
        relationships.append(
            {
                **key,
                "relationships": [
                    {
                        "relationship_id": _IDS_PER_SCENE * scene.image_id + number,
                        "predicate": relation.predicate,
                        "synsets": [],
                        "subject": _end_row(relation.subject),
                        "object": _end_row(relation.target),
                    }
                    for number, relation in enumerate(relations)
                ],
            }
        )
    write_compact_json(folder / "image_data.json", pictures)
    write_compact_json(folder / "objects.json", objects)
    write_compact_json(folder / "attributes.json", attributes)
    write_compact_json(folder / "region_descriptions.json", regions)
    write_compact_json(folder / "relationships.json", relationships)


def _object_row(thing: ToyObject) -> Row:
    box = thing.box
    return {
        "object_id": thing.object_id,
        "names": [thing.shape],
        "synsets": [],
        "x": box.x1,
        "y": box.y1,
        "w": box.x2 - box.x1,
        "h": box.y2 - box.y1,
    }


def _end_row(thing: ToyObject) -> Row:
    """An object as relationships.json holds it: one `name` instead of `names`."""
    row = _object_row(thing)
    row["name"] = row.pop("names")[0]
    return row


def write_captions(path: epath.Path, scenes: Sequence[ToyScene], seed: int) -> None:
    """Writes a COCO captions file with five captions of each scene that has a COCO id."""
    images: list[Row] = []
    annotations: list[Row] = []
    for scene in scenes:
        if scene.coco_id is None:
            continue
        images.append(
            {
                "id": scene.coco_id,
                "file_name": f"COCO_train2014_{scene.coco_id:012d}.jpg",
                "width": scene.width,
                "height": scene.height,
            }
        )
        for text in captions_of(scene, seed):
            annotations.append(
                {"image_id": scene.coco_id, "id": len(annotations) + 1, "caption": text}
            )
    write_compact_json(path, {"info": {}, "images": images, "annotations": annotations})


def write_vqa(
    folder: epath.Path, asked: Iterable[tuple[ToyScene, Sequence[Question]]], subtype: str
) -> int:
    """Writes questions.json and annotations.json in VQAv2's format; returns how many questions.

    VQAv2 names its COCO pictures by id; ours are told by the extra key "image_file". The kind of a
    question is its annotation's "question_type".
    """
    questions: list[Row] = []
    annotations: list[Row] = []
    for scene, chosen in asked:
        for number, question in enumerate(chosen):
            key = {
                "image_id": scene.image_id,
                "question_id": _IDS_PER_SCENE * scene.image_id + number,
            }
            extra = {"kind": question.kind, "novel_combination": question.novel}
            questions.append(
                {**key, "question": question.text, "image_file": scene.image_file, **extra}
            )
            annotations.append(
                {
                    **key,
                    "question_type": question.kind,
                    "answer_type": _answer_type(question),
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer": question.answer, "answer_confidence": "yes", "answer_id": k + 1}
                        for k in range(_ANNOTATORS)
                    ],
                    **extra,
                }
            )
    head = {"info": {"description": "toy world"}, "data_type": "mscoco", "data_subtype": subtype}
    write_compact_json(
        folder / "questions.json", {**head, "task_type": "Open-Ended", "questions": questions}
    )
    write_compact_json(folder / "annotations.json", {**head, "annotations": annotations})
    return len(questions)


def _answer_type(question: Question) -> str:
    if question.answer in ("yes", "no"):
        return "yes/no"
    return "number" if question.kind == "count" else "other"
