"""Visual Genome's official files -> Scenes, streamed: no file is ever held in memory as a whole."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from etils import epath

from data_pipeline.annotations import fields
from data_pipeline.annotations.clip import clip_box
from data_pipeline.annotations.join import join_by_image
from data_pipeline.annotations.scene import Region, Relation, Scene, SceneObject
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import stream_list
from data_pipeline.common.quarantine import Quarantine

T = TypeVar("T")
Reject = Callable[[str, str], None]

# Each file's name and the key of its list; image_data.json has one entry a row.
_LISTS = {
    "image_data": None,
    "objects": "objects",
    "region_descriptions": "regions",
    "attributes": "attributes",
    "relationships": "relationships",
}
_OPTIONAL = ("attributes", "relationships")


@dataclasses.dataclass(frozen=True)
class _Picture:
    image_file: str
    width: int
    height: int
    coco_id: int | None


@dataclasses.dataclass(frozen=True)
class _Object:
    """An object before its box is clipped; `merged_ids` are the ids it replaces (version 1.4)."""

    object_id: int
    merged_ids: tuple[int, ...]
    name: str
    corners: fields.Corners


def read_visual_genome(
    folder: PathLike,
    captions: Mapping[int, tuple[str, ...]] | None = None,
    quarantine: Quarantine | None = None,
    unmatched: Counter[str] | None = None,
) -> Iterator[Scene]:
    """Yields a scene for each picture of image_data.json, in the files' own order.

    `folder` holds image_data.json, objects.json and region_descriptions.json and may hold
    attributes.json and relationships.json, of versions 1.0, 1.2 or 1.4 in any mixture, under
    these names or as downloaded (`objects.json.zip`, `objects_v1_2.json.zip`). `captions` are by
    COCO id. The files are read side by side and joined by image id, whatever their order. Boxes are
    clipped to the picture.

    A bad record (missing keys, a box outside its picture, an image id seen before or not in
    image_data.json) goes to `quarantine`; without one, the first bad record raises BadRecordError.
    Attributes and relations whose object is not in objects.json are left out and counted in
    `unmatched` ("attributes", "relations"): version 1.4 cleaned objects.json alone, so they are no
    defect of a record. Raises UserError for a missing or malformed file.
    """

    def reject(record_id: str, reason: str) -> None:
        if quarantine is None:
            raise BadRecordError(
                f"Visual Genome folder {folder}, {record_id}: {reason}; mend the record, or read "
                "with a quarantine to leave such records out."
            )
        quarantine.add(record_id, reason)

    root = epath.Path(folder)
    if not root.is_dir():
        raise UserError(f"Visual Genome: there is no folder {folder}; check the path.")
    captions = captions or {}
    unmatched = Counter() if unmatched is None else unmatched
    streams = [_read_rows(root, name, reject) for name in _LISTS]
    for image_id, rows in join_by_image(streams):
        picture = next(_parsed(image_id, "image_data", rows[0], _parse_picture, reject), None)
        if picture is None:
            if rows[0] is None:
                reject(f"image {image_id}", "no entry in image_data.json")
            continue
        objects = list(_parsed(image_id, "objects", rows[1], _parse_object, reject))
        regions = _parsed(image_id, "region_descriptions", rows[2], _parse_region, reject)
        attributes = _parsed(image_id, "attributes", rows[3], _parse_attributes, reject)
        relations = _parsed(image_id, "relationships", rows[4], _parse_relation, reject)
        kept = _clip_objects(image_id, picture, objects, reject)
        owner = {merged: o.object_id for o in objects for merged in o.merged_ids}
        owner.update({object_id: object_id for object_id in kept})
        yield Scene(
            image_id=image_id,
            image_file=picture.image_file,
            width=picture.width,
            height=picture.height,
            coco_id=picture.coco_id,
            captions=() if picture.coco_id is None else captions.get(picture.coco_id, ()),
            objects=_with_attributes(kept, attributes, owner, unmatched),
            regions=_clip_regions(image_id, picture, regions, reject),
            relations=_known_relations(kept, relations, owner, unmatched),
        )


def _find(folder: epath.Path, name: str) -> epath.Path | None:
    """The file by its plain name, else as the site names its downloads; None if it may be absent.

    Raises UserError where a needed file is missing or several versions lie side by side.
    """
    for plain in (folder / f"{name}.json", folder / f"{name}.json.zip"):
        if plain.exists():
            return plain
    found = sorted(folder.glob(f"{name}_v*.json")) or sorted(folder.glob(f"{name}_v*.json.zip"))
    if len(found) > 1:
        raise UserError(
            f"Visual Genome folder {folder} has several versions of one file: "
            f"{', '.join(path.name for path in found)}; leave one of them there."
        )
    if not found and name not in _OPTIONAL:
        raise UserError(
            f"Visual Genome folder {folder} has no {name}.json (nor {name}.json.zip); "
            "check the path, or download the file."
        )
    return found[0] if found else None


def _read_rows(
    folder: epath.Path, name: str, reject: Reject
) -> Iterator[tuple[int, tuple[int, list[Any]]]]:
    """Yields (image id, (row number, entries)) for each picture of one file."""
    path = _find(folder, name)
    if path is None:
        return
    key = _LISTS[name]
    seen: set[int] = set()
    for number, row in enumerate(stream_list(path, "Visual Genome file"), start=1):
        where = f"{name}.json row {number}"
        try:
            # By version and file the picture's id is called one or the other.
            image_id = fields.integer(row, "image_id", "id")
            entries = [row] if key is None else fields.entries(row, key)
        except ValueError as problem:
            reject(where, str(problem))
            continue
        if image_id in seen:
            reject(f"image {image_id}, {where}", "image id seen before in this file")
            continue
        seen.add(image_id)
        yield image_id, (number, entries)


def _parsed(
    image_id: int,
    name: str,
    row: tuple[int, list[Any]] | list[Any] | None,
    parse: Callable[[Any], T],
    reject: Reject,
) -> Iterator[T]:
    """Yields the entries of one picture's row in one file; bad ones are rejected."""
    number, entries = row or (0, ())
    for position, entry in enumerate(entries, start=1):
        try:
            yield parse(entry)
        except ValueError as problem:
            place = "" if _LISTS[name] is None else f", entry {position}"
            reject(f"image {image_id}, {name}.json row {number}{place}", str(problem))


def _parse_picture(row: Any) -> _Picture:
    url = fields.text(row, "url")
    parts = url.split("?")[0].split("/")
    if len(parts) < 2 or not all(parts[-2:]):
        raise ValueError(f'"url" does not end in FOLDER/FILE: {url}')
    width, height = fields.integer(row, "width"), fields.integer(row, "height")
    if width < 1 or height < 1:
        raise ValueError(f"picture size is not positive: {width}x{height}")
    coco_id = None if row.get("coco_id") is None else fields.integer(row, "coco_id")
    return _Picture(fields.relative_file("/".join(parts[-2:]), "url"), width, height, coco_id)


def _parse_object(row: Any) -> _Object:
    object_id = fields.integer(row, "object_id", "id")
    names = fields.texts(row.get("names") or row.get("name"), "names")
    if not names:
        raise ValueError('"names" or "name" holds no name')
    merged = fields.entries(row, "merged_object_ids") if "merged_object_ids" in row else []
    if not all(isinstance(item, int) for item in merged):
        raise ValueError(f'"merged_object_ids" is not a list of ids: {fields.short(merged)}')
    return _Object(object_id, tuple(merged), names[0], fields.corners(row))


def _parse_region(row: Any) -> tuple[str, fields.Corners]:
    return fields.text(row, "phrase"), fields.corners(row)


def _parse_attributes(row: Any) -> tuple[int, tuple[str, ...]]:
    """An object's id and attributes. Version 1.0 nests the object and may hold one `attribute`."""
    nested = row.get("object") if isinstance(row, dict) else None
    object_id = fields.integer(nested if isinstance(nested, dict) else row, "object_id", "id")
    return object_id, fields.texts(row.get("attributes") or row.get("attribute"), "attributes")


def _parse_relation(row: Any) -> Relation:
    ends = []
    for end in ("subject", "object"):
        nested = row.get(end) if isinstance(row, dict) else None
        if isinstance(nested, dict):
            ends.append(fields.integer(nested, "object_id", "id"))
        else:
            ends.append(fields.integer(row, f"{end}_id"))
    return Relation(ends[0], fields.text(row, "predicate"), ends[1])


def _clip_objects(
    image_id: int, picture: _Picture, objects: list[_Object], reject: Reject
) -> dict[int, SceneObject]:
    kept: dict[int, SceneObject] = {}
    for raw in objects:
        where = f"image {image_id}, object {raw.object_id} ({raw.name})"
        if raw.object_id in kept:
            reject(where, "object id seen before in this picture")
            continue
        try:
            box = clip_box(raw.corners, picture.width, picture.height)
        except ValueError as problem:
            reject(where, str(problem))
        else:
            kept[raw.object_id] = SceneObject(raw.object_id, raw.name, box)
    return kept


def _clip_regions(
    image_id: int,
    picture: _Picture,
    regions: Iterator[tuple[str, fields.Corners]],
    reject: Reject,
) -> tuple[Region, ...]:
    kept = []
    for phrase, corners in regions:
        try:
            kept.append(Region(phrase, clip_box(corners, picture.width, picture.height)))
        except ValueError as problem:
            reject(f"image {image_id}, region ({phrase})", str(problem))
    return tuple(kept)


def _with_attributes(
    kept: dict[int, SceneObject],
    attributes: Iterator[tuple[int, tuple[str, ...]]],
    owner: dict[int, int],
    unmatched: Counter[str],
) -> tuple[SceneObject, ...]:
    gathered: dict[int, list[str]] = {}
    for object_id, texts in attributes:
        known = owner.get(object_id)
        if known in kept:
            gathered.setdefault(known, []).extend(texts)
        elif texts:
            unmatched["attributes"] += 1
    return tuple(
        dataclasses.replace(o, attributes=tuple(dict.fromkeys(gathered.get(o.object_id, ()))))
        for o in kept.values()
    )


def _known_relations(
    kept: dict[int, SceneObject],
    relations: Iterator[Relation],
    owner: dict[int, int],
    unmatched: Counter[str],
) -> tuple[Relation, ...]:
    known = []
    for relation in relations:
        subject, target = owner.get(relation.subject_id), owner.get(relation.object_id)
        if subject in kept and target in kept:
            known.append(Relation(subject, relation.predicate, target))
        else:
            unmatched["relations"] += 1
    return tuple(known)
