"""Visual Genome's official files -> Scenes, streamed: no file is ever held in memory as a whole."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ijson
from etils import epath

from data_pipeline.annotations.scene import PixelBox, Region, Relation, Scene, SceneObject
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.common.quarantine import Quarantine

Reject = Callable[[str, str], None]
Number = int | float
Corners = tuple[Number, Number, Number, Number]


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
    corners: Corners


def read_visual_genome(
    folder: PathLike,
    captions: Mapping[int, tuple[str, ...]] | None = None,
    quarantine: Quarantine | None = None,
    unmatched: Counter[str] | None = None,
) -> Iterator[Scene]:
    """Yields a scene for each picture of image_data.json, in the files' own order.

    `folder` holds image_data.json, objects.json and region_descriptions.json and may hold
    attributes.json and relationships.json, of versions 1.0, 1.2 or 1.4. `captions` are by COCO id.
    The files are read side by side and joined by image id, so memory stays small where they share
    an order, and the result is right in any order. Boxes are clipped to the picture.

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
    captions = captions or {}
    unmatched = Counter() if unmatched is None else unmatched
    streams = [
        _read_parts(root / "image_data.json", None, _parse_picture, reject),
        _read_parts(root / "objects.json", "objects", _parse_object, reject),
        _read_parts(root / "region_descriptions.json", "regions", _parse_region, reject),
        _read_parts(root / "attributes.json", "attributes", _parse_attributes, reject, True),
        _read_parts(root / "relationships.json", "relationships", _parse_relation, reject, True),
    ]
    for image_id, (pictures, objects, regions, attributes, relations) in _join(streams):
        if pictures is None:
            reject(f"image {image_id}", "no entry in image_data.json")
        if not pictures:
            continue
        picture: _Picture = pictures[0]
        kept = _clip_objects(image_id, picture, objects or [], reject)
        owner = {merged: o.object_id for o in objects or [] for merged in o.merged_ids}
        owner.update({object_id: object_id for object_id in kept})
        yield Scene(
            image_id=image_id,
            image_file=picture.image_file,
            width=picture.width,
            height=picture.height,
            coco_id=picture.coco_id,
            captions=() if picture.coco_id is None else captions.get(picture.coco_id, ()),
            objects=_with_attributes(kept, attributes or [], owner, unmatched),
            regions=_clip_regions(image_id, picture, regions or [], reject),
            relations=_known_relations(kept, relations or [], owner, unmatched),
        )


def _join(
    streams: Sequence[Iterator[tuple[int, list[Any]]]],
) -> Iterator[tuple[int, list[list[Any] | None]]]:
    """Full outer join by image id; what waits for its other parts is all that is held in memory."""
    waiting: dict[int, list[list[Any] | None]] = {}
    running = dict(enumerate(streams))

    def whole(parts: list[list[Any] | None]) -> bool:
        return all(parts[index] is not None for index in running)

    while running:
        for index, stream in list(running.items()):
            item = next(stream, None)
            if item is None:
                del running[index]
                for image_id in [key for key, parts in waiting.items() if whole(parts)]:
                    yield image_id, waiting.pop(image_id)
                continue
            image_id, part = item
            parts = waiting.setdefault(image_id, [None] * len(streams))
            parts[index] = part
            if whole(parts):
                yield image_id, waiting.pop(image_id)


def _read_parts(
    path: epath.Path,
    key: str | None,
    parse: Callable[[Any], Any],
    reject: Reject,
    optional: bool = False,
) -> Iterator[tuple[int, list[Any]]]:
    """Yields (image id, parsed entries) for each picture of one file; bad entries are rejected.

    The entries are the list under `key`, or the row itself where `key` is None.
    """
    if optional and not path.exists():
        return
    seen: set[int] = set()
    for number, row in enumerate(_stream_rows(path), start=1):
        where = f"{path.name} row {number}"
        try:
            image_id = _integer(row, "image_id", "id")
            entries = [row] if key is None else _list(row, key)
        except ValueError as problem:
            reject(where, str(problem))
            continue
        if image_id in seen:
            reject(f"image {image_id}, {where}", "image id seen before in this file")
            continue
        seen.add(image_id)
        parsed = []
        for position, entry in enumerate(entries, start=1):
            try:
                parsed.append(parse(entry))
            except ValueError as problem:
                place = "" if key is None else f", entry {position}"
                reject(f"image {image_id}, {where}{place}", str(problem))
        yield image_id, parsed


def _stream_rows(path: epath.Path) -> Iterator[Any]:
    require_file(path, f"Visual Genome's {path.name}")
    with path.open("rb") as file:
        if file.read(64).lstrip()[:1] != b"[":
            raise UserError(
                f"Visual Genome file {path} is not a JSON list of pictures; "
                "unzip the official file again."
            )
        file.seek(0)
        try:
            yield from ijson.items(file, "item", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            problem = str(error).strip().split("\n")[0]
            raise UserError(
                f"Visual Genome file {path} is not valid JSON ({problem}); "
                "it may be cut off: unzip the official file again."
            ) from None


def _parse_picture(row: Any) -> _Picture:
    url = _text(row, "url")
    parts = url.split("?")[0].split("/")
    if len(parts) < 2:
        raise ValueError(f'"url" does not end in FOLDER/FILE: {url}')
    width, height = _integer(row, "width"), _integer(row, "height")
    if width < 1 or height < 1:
        raise ValueError(f"picture size is not positive: {width}x{height}")
    coco_id = None if row.get("coco_id") is None else _integer(row, "coco_id")
    return _Picture("/".join(parts[-2:]), width, height, coco_id)


def _parse_object(row: Any) -> _Object:
    object_id = _integer(row, "object_id", "id")
    names = row.get("names") or row.get("name")
    name = names[0] if isinstance(names, list) else names
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'"names" or "name" holds no name: {name!r}')
    return _Object(
        object_id=object_id,
        merged_ids=tuple(_list(row, "merged_object_ids")) if "merged_object_ids" in row else (),
        name=name.strip(),
        corners=_corners(row),
    )


def _parse_region(row: Any) -> tuple[str, Corners]:
    return _text(row, "phrase"), _corners(row)


def _parse_attributes(row: Any) -> tuple[int, tuple[str, ...]]:
    """An object's id and attributes. Version 1.0 nests the object and may hold one `attribute`."""
    nested = row.get("object") if isinstance(row, dict) else None
    object_id = _integer(nested if isinstance(nested, dict) else row, "object_id", "id")
    attributes = row.get("attributes") or row.get("attribute") or []
    if isinstance(attributes, str):
        attributes = [attributes]
    if not isinstance(attributes, list):
        raise ValueError(f'"attributes" is not a list: {attributes!r}')
    texts = [a.strip() for a in attributes if isinstance(a, str) and a.strip()]
    return object_id, tuple(dict.fromkeys(texts))


def _parse_relation(row: Any) -> Relation:
    ends = []
    for end in ("subject", "object"):
        nested = row.get(end) if isinstance(row, dict) else None
        if isinstance(nested, dict):
            ends.append(_integer(nested, "object_id", "id"))
        else:
            ends.append(_integer(row, f"{end}_id"))
    return Relation(ends[0], _text(row, "predicate"), ends[1])


def _clip_objects(
    image_id: int, picture: _Picture, objects: list[_Object], reject: Reject
) -> dict[int, SceneObject]:
    kept: dict[int, SceneObject] = {}
    for raw in objects:
        where = f"image {image_id}, object {raw.object_id} ({raw.name})"
        box = _clip(raw.corners, picture)
        if raw.object_id in kept:
            reject(where, "object id seen before in this picture")
        elif box is None:
            reject(where, _outside(raw.corners, picture))
        else:
            kept[raw.object_id] = SceneObject(raw.object_id, raw.name, box)
    return kept


def _clip_regions(
    image_id: int, picture: _Picture, regions: list[tuple[str, Corners]], reject: Reject
) -> tuple[Region, ...]:
    kept = []
    for phrase, corners in regions:
        box = _clip(corners, picture)
        if box is None:
            reject(f"image {image_id}, region ({phrase})", _outside(corners, picture))
        else:
            kept.append(Region(phrase, box))
    return tuple(kept)


def _with_attributes(
    kept: dict[int, SceneObject],
    attributes: list[tuple[int, tuple[str, ...]]],
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
    relations: list[Relation],
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


def _clip(corners: Corners, picture: _Picture) -> PixelBox | None:
    x1, y1, x2, y2 = corners
    box = PixelBox(
        max(0, round(x1)),
        max(0, round(y1)),
        min(picture.width, round(x2)),
        min(picture.height, round(y2)),
    )
    return box if box.x1 < box.x2 and box.y1 < box.y2 else None


def _outside(corners: Corners, picture: _Picture) -> str:
    return (
        f"box is empty inside its picture: corners {corners} "
        f"on {picture.width}x{picture.height} pixels"
    )


def _corners(row: Any) -> Corners:
    x, y = _number(row, "x"), _number(row, "y")
    return x, y, x + _number(row, "w", "width"), y + _number(row, "h", "height")


def _value(row: Any, keys: tuple[str, ...]) -> Any:
    """The first of `keys` that the row has, or ValueError: the caller knows where the row is."""
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {str(row)[:60]}")
    for key in keys:
        if key in row:
            return row[key]
    raise ValueError("missing key: " + " or ".join(f'"{key}"' for key in keys))


def _integer(row: Any, *keys: str) -> int:
    value = _number(row, *keys)
    if not float(value).is_integer():
        raise ValueError(f'"{keys[0]}" is not an integer: {value!r}')
    return int(value)


def _number(row: Any, *keys: str) -> Number:
    value = _value(row, keys)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'"{keys[0]}" is not a number: {value!r}')
    return value


def _text(row: Any, *keys: str) -> str:
    value = _value(row, keys)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{keys[0]}" is not a text: {value!r}')
    return value.strip()


def _list(row: Any, key: str) -> list[Any]:
    value = _value(row, (key,))
    if not isinstance(value, list):
        raise ValueError(f'"{key}" is not a list: {str(value)[:60]}')
    return value
