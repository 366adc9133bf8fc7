"""A user's own pictures: one JSON line for each, with what is known of it -> Scenes."""

from collections.abc import Iterator
from typing import Any

from data_pipeline.annotations import fields
from data_pipeline.annotations.clip import clip_box
from data_pipeline.annotations.picture_size import PictureSizes
from data_pipeline.annotations.scene import PixelBox, Region, Scene, SceneObject
from data_pipeline.common.files import PathLike, read_jsonl
from data_pipeline.common.quarantine import Quarantine

_KEYS = ("image", "image_id", "captions", "objects", "regions")


def read_own(path: PathLike, sizes: PictureSizes, quarantine: Quarantine) -> Iterator[Scene]:
    """Yields a scene for each line of a JSONL file about one's own pictures.

    A line is an object with "image", the picture's path within its folder, and any of "captions"
    (texts), "objects" ({"name", "box", "attributes"}) and "regions" ({"phrase", "box"}); boxes are
    [x1, y1, x2, y2] in pixels. "image_id" is the line's number where it is not given. Sizes are
    read from the pictures. Bad lines and bad entries go to `quarantine`; a key that is none of
    these makes a line bad, since it is probably misspelt. Raises UserError for a malformed file.
    """
    seen: set[int] = set()
    files: set[str] = set()
    for number, row in enumerate(read_jsonl(path, "annotations file"), start=1):
        where = f"{path}, row {number}"
        try:
            image_file = fields.relative_file(fields.text(row, "image"), "image")
            _refuse_unknown_keys(row, _KEYS)
            image_id = fields.integer(row, "image_id") if "image_id" in row else number
            captions = fields.texts(row.get("captions"), "captions")
            objects = fields.entries(row, "objects") if row.get("objects") is not None else []
            regions = fields.entries(row, "regions") if row.get("regions") is not None else []
            if image_id in seen or image_file in files:
                raise ValueError(f"picture seen before in this file: {image_id}, {image_file}")
            width, height = sizes.of(image_file)
        except ValueError as problem:
            quarantine.add(where, str(problem))
            continue
        seen.add(image_id)
        files.add(image_file)
        kept_objects, kept_regions = [], []
        for position, entry in enumerate(objects, start=1):
            try:
                name, box = _named_box(entry, "name", width, height, ("attributes",))
                attributes = fields.texts(entry.get("attributes"), "attributes")
            except ValueError as problem:
                quarantine.add(f"{where}, object {position}", str(problem))
            else:
                kept_objects.append(SceneObject(position, name, box, attributes))
        for position, entry in enumerate(regions, start=1):
            try:
                kept_regions.append(Region(*_named_box(entry, "phrase", width, height)))
            except ValueError as problem:
                quarantine.add(f"{where}, region {position}", str(problem))
        yield Scene(
            image_id,
            image_file,
            width,
            height,
            captions=captions,
            objects=tuple(kept_objects),
            regions=tuple(kept_regions),
        )


def _named_box(
    entry: Any, key: str, width: int, height: int, others: tuple[str, ...] = ()
) -> tuple[str, PixelBox]:
    named = fields.text(entry, key)
    _refuse_unknown_keys(entry, (key, "box", *others))
    corners = fields.four_numbers(entry, "box")
    if all(0 <= side <= 1 for side in corners) and min(width, height) > 1:
        raise ValueError(f'"box" is in fractions, not in pixels: {list(corners)}')
    return named, clip_box(corners, width, height)


def _refuse_unknown_keys(row: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = next((key for key in row if key not in known), None)
    if unknown is not None:
        raise ValueError(f'unknown key: "{unknown}"; known are: {", ".join(known)}')
