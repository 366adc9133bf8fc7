"""Toy scenes in the files of real data: Visual Genome, COCO captions, VQAv2, pictures."""

import contextlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from data_pipeline.common.files import open_atomic, write_text
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.toy_world.descriptions import captions_of, object_phrase, relations_of
from data_pipeline.toy_world.draw import encode_scene
from data_pipeline.toy_world.questions import Question
from data_pipeline.toy_world.world import ToyObject, ToyScene

Row = dict[str, Any]

VISUAL_GENOME = (
    "image_data",
    "objects",
    "attributes",
    "region_descriptions",
    "relationships",
)
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
    with contextlib.ExitStack() as files:
        write = {
            name: files.enter_context(json_list_writer(folder / f"{name}.json"))
            for name in VISUAL_GENOME
        }
        for scene in progress(scenes, f"describing {folder.parent.name}", unit="scene"):
            key = {"image_id": scene.image_id}
            relations = relations_of(scene, seed)
            write["image_data"](
                {
                    **key,
                    "url": f"https://toy.invalid/{scene.image_file}",
                    "width": scene.width,
                    "height": scene.height,
                    "coco_id": scene.coco_id,
                    "flickr_id": None,
                }
            )
            write["objects"]({**key, "objects": [_object_row(o) for o in scene.objects]})
            write["attributes"](
                {
                    **key,
                    "attributes": [
                        _object_row(o) | {"attributes": [o.size, o.colour]} for o in scene.objects
                    ],
                }
            )
            boxes = [(object_phrase(o), o.box) for o in scene.objects]
            boxes += [(relation.phrase, relation.box) for relation in relations]
            write["region_descriptions"](
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
            write["relationships"](
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
    known = [scene for scene in scenes if scene.coco_id is not None]
    images = [
        {
            "id": scene.coco_id,
            "file_name": f"COCO_train2014_{scene.coco_id:012d}.jpg",
            "width": scene.width,
            "height": scene.height,
        }
        for scene in known
    ]
    with json_list_writer(path, "annotations", {"info": {}, "images": images}) as write:
        number = itertools.count(1)
        for scene in known:
            for text in captions_of(scene, seed):
                write({"image_id": scene.coco_id, "id": next(number), "caption": text})


def write_vqa(
    folder: epath.Path, asked: Iterable[tuple[ToyScene, Sequence[Question]]], subtype: str
) -> int:
    """Writes questions.json and annotations.json in VQAv2's format; returns how many questions.

    VQAv2 names its COCO pictures by id; ours are told by the extra key "image_file". The kind of a
    question is its annotation's "question_type".
    """
    head = {"info": {"description": "toy world"}, "data_type": "mscoco", "data_subtype": subtype}
    task = {**head, "task_type": "Open-Ended"}
    count = 0
    with (
        json_list_writer(folder / "questions.json", "questions", task) as ask,
        json_list_writer(folder / "annotations.json", "annotations", head) as answer,
    ):
        for scene, chosen in asked:
            for number, question in enumerate(chosen):
                key = {
                    "image_id": scene.image_id,
                    "question_id": _IDS_PER_SCENE * scene.image_id + number,
                }
                extra = {"kind": question.kind, "novel_combination": question.novel}
                ask({**key, "question": question.text, "image_file": scene.image_file, **extra})
                answer({**key, **_annotation(question), **extra})
                count += 1
    return count


def _annotation(question: Question) -> Row:
    return {
        "question_type": question.kind,
        "answer_type": _answer_type(question),
        "multiple_choice_answer": question.answer,
        "answers": [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": k + 1}
            for k in range(_ANNOTATORS)
        ],
    }


def _answer_type(question: Question) -> str:
    if question.answer in ("yes", "no"):
        return "yes/no"
    return "number" if question.kind == "count" else "other"
