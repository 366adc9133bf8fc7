"""Scene: one picture's captions, objects, regions and relations, whatever files they came from."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_jsonl, write_jsonl


class PixelBox(NamedTuple):
    """A box in whole pixels of its own picture: x1, y1 inclusive top left; x2, y2 exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclasses.dataclass(frozen=True)
class SceneObject:
    object_id: int
    name: str
    box: PixelBox
    attributes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Region:
    phrase: str
    box: PixelBox


@dataclasses.dataclass(frozen=True)
class Relation:
    subject_id: int
    predicate: str
    object_id: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is known of one picture. `image_file` is relative to the images folder
    (`VG_100K/1.jpg`); sizes are pixels; `coco_id` is None where the picture is not from COCO."""

    image_id: int
    image_file: str
    width: int
    height: int
    coco_id: int | None = None
    captions: tuple[str, ...] = ()
    objects: tuple[SceneObject, ...] = ()
    regions: tuple[Region, ...] = ()
    relations: tuple[Relation, ...] = ()


def scene_to_json(scene: Scene) -> dict[str, Any]:
    """The scene's fields by name. Spelt out: `dataclasses.asdict` takes as long as all reading."""
    return {
        "image_id": scene.image_id,
        "image_file": scene.image_file,
        "width": scene.width,
        "height": scene.height,
        "coco_id": scene.coco_id,
        "captions": scene.captions,
        "objects": [vars(item) for item in scene.objects],
        "regions": [vars(region) for region in scene.regions],
        "relations": [vars(relation) for relation in scene.relations],
    }


def scene_from_json(row: dict[str, Any]) -> Scene:
    return Scene(
        image_id=row["image_id"],
        image_file=row["image_file"],
        width=row["width"],
        height=row["height"],
        coco_id=row["coco_id"],
        captions=tuple(row["captions"]),
        objects=tuple(
            SceneObject(o["object_id"], o["name"], PixelBox(*o["box"]), tuple(o["attributes"]))
            for o in row["objects"]
        ),
        regions=tuple(Region(r["phrase"], PixelBox(*r["box"])) for r in row["regions"]),
        relations=tuple(
            Relation(r["subject_id"], r["predicate"], r["object_id"]) for r in row["relations"]
        ),
    )


def write_scenes(path: PathLike, scenes: Iterable[Scene]) -> int:
    """Writes one scene a line (JSONL) and returns how many."""
    return write_jsonl(path, (scene_to_json(scene) for scene in scenes))


def read_scenes(path: PathLike) -> Iterator[Scene]:
    """Yields the scenes that `write_scenes` wrote. Raises UserError naming a row that is none."""
    for number, row in enumerate(read_jsonl(path, "scenes file"), start=1):
        try:
            yield scene_from_json(row)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"scenes file {path}, row {number}, is not a scene ({error!r}); "
                "write it with `svit data annotate`."
            ) from None
