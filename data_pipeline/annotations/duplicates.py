"""Objects that were boxed several times, made one."""

import dataclasses

from data_pipeline.annotations.scene import Relation, Scene, SceneObject
from data_pipeline.common.boxes import NormalBox, intersection_over_union


def merge_duplicates(scene: Scene, overlap: float) -> Scene:
    """The scene in which objects of the same name that overlap stand once.

    In the file's order, an object joins the first that was kept, has its name (case and spaces
    apart) and shares at least `overlap` (intersection over union, 0 to 1) of the area with it. The
    first keeps its id and box and takes the other's attributes and relations; a relation between
    the two is left out.
    """
    kept: list[SceneObject] = []
    by_name: dict[str, list[int]] = {}
    owner: dict[int, int] = {}
    for item in scene.objects:
        alike = by_name.setdefault(" ".join(item.name.lower().split()), [])
        place = next((k for k in alike if _overlap(kept[k], item, scene) >= overlap), None)
        if place is None:
            alike.append(len(kept))
            owner[item.object_id] = item.object_id
            kept.append(item)
            continue
        first = kept[place]
        both = tuple(dict.fromkeys(first.attributes + item.attributes))
        kept[place] = dataclasses.replace(first, attributes=both)
        owner[item.object_id] = first.object_id
    relations = (
        Relation(owner[r.subject_id], r.predicate, owner[r.object_id])
        for r in scene.relations
        if owner[r.subject_id] != owner[r.object_id] or r.subject_id == r.object_id
    )
    return dataclasses.replace(
        scene, objects=tuple(kept), relations=tuple(dict.fromkeys(relations))
    )


def _overlap(a: SceneObject, b: SceneObject, scene: Scene) -> float:
    return intersection_over_union(_fractions(a, scene), _fractions(b, scene))


def _fractions(item: SceneObject, scene: Scene) -> NormalBox:
    x1, y1, x2, y2 = item.box
    width, height = scene.width, scene.height
    return NormalBox(x1 / width, y1 / height, x2 / width, y2 / height)
