"""COCO's file formats: captions by picture, and instances -> Scenes."""

import dataclasses
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from data_pipeline.annotations import fields
from data_pipeline.annotations.clip import clip_box
from data_pipeline.annotations.picture_size import PictureSizes
from data_pipeline.annotations.scene import Region, Scene, SceneObject
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import stream_under
from data_pipeline.common.quarantine import Quarantine


def read_captions(path: PathLike, quarantine: Quarantine) -> dict[int, tuple[str, ...]]:
    """The captions of each COCO picture id, in the file's order, outer white space removed.

    `path` is an official captions file (`captions_train2014.json`, `captions_val2017.json`).
    Pictures without a caption are absent; entries that are no captions go to `quarantine`. Raises
    UserError where the file's first entry is none: it is another file then.
    """
    captions: dict[int, list[str]] = {}
    entries = stream_under(path, "COCO captions file", "annotations")
    for number, row in enumerate(entries, start=1):
        try:
            coco_id, caption = fields.integer(row, "image_id"), fields.text(row, "caption")
        except ValueError as problem:
            if number == 1:
                raise UserError(
                    f'COCO captions file {path} holds no captions under "annotations" (the first '
                    f"entry: {problem}); give an official captions_*.json file, not an instances "
                    "or key-points file."
                ) from None
            quarantine.add(f"{path}, annotation {number}", str(problem))
            continue
        captions.setdefault(coco_id, []).append(caption)
    if not captions:
        raise UserError(
            f'COCO captions file {path} has no list "annotations" with captions in it; '
            "give an official captions_*.json file."
        )
    return {coco_id: tuple(texts) for coco_id, texts in captions.items()}


@dataclasses.dataclass(frozen=True)
class _Boxes:
    """All annotations of a file, grouped by picture: 61 bytes each, where objects take a thousand.

    Row k is annotation `ids[k]`; `rows_of` says which rows are a picture's, in the file's order.
    """

    ids: np.ndarray
    categories: np.ndarray
    corners: np.ndarray
    crowds: np.ndarray
    rows_of: dict[int, np.ndarray]


def read_coco_instances(
    path: PathLike,
    captions: Mapping[int, tuple[str, ...]],
    quarantine: Quarantine,
    sizes: PictureSizes | None = None,
) -> Iterator[Scene]:
    """Yields a scene for each picture of a COCO instances file, in its order.

    A picture's objects are its annotations' boxes named by their category; a crowd's box
    (`iscrowd`) becomes the region "a group of NAME", since it is no single object. `captions` are
    by the file's own image ids. With `sizes`, a picture that is missing, or not of the size that
    the file gives, is rejected. Bad entries go to `quarantine`. Raises UserError where the file is
    missing, malformed or without pictures.
    """
    what = "COCO instances file"
    names: dict[int, str] = {}
    for number, row in enumerate(stream_under(path, what, "categories"), start=1):
        try:
            names[fields.integer(row, "id")] = fields.text(row, "name")
        except ValueError as problem:
            quarantine.add(f"{path}, category {number}", str(problem))
    boxes = _read_boxes(path, what, names, quarantine)
    seen: set[int] = set()
    for number, row in enumerate(stream_under(path, what, "images"), start=1):
        try:
            image_id = fields.integer(row, "id")
            image_file = fields.relative_file(fields.text(row, "file_name"), "file_name")
            width, height = fields.integer(row, "width"), fields.integer(row, "height")
            if width < 1 or height < 1:
                raise ValueError(f"picture size is not positive: {width}x{height}")
            if image_id in seen:
                raise ValueError(f"image id seen before in this file: {image_id}")
            seen.add(image_id)
            if sizes is not None and (found := sizes.of(image_file)) != (width, height):
                raise ValueError(
                    f"picture size differs: {image_file} is {found[0]}x{found[1]}, the file says "
                    f"{width}x{height} (a picture turned by its EXIF tag?)"
                )
        except ValueError as problem:
            quarantine.add(f"{path}, image {number}", str(problem))
            continue
        objects, regions = [], []
        for k in boxes.rows_of.pop(image_id, ()):
            x1, y1, x2, y2 = boxes.corners[k].tolist()
            name = names[int(boxes.categories[k])]
            try:
                box = clip_box((x1, y1, x2, y2), width, height)
            except ValueError as problem:
                quarantine.add(
                    f"image {image_id}, annotation {boxes.ids[k]} ({name})", str(problem)
                )
                continue
            if boxes.crowds[k]:
                regions.append(Region(f"a group of {name}", box))
            else:
                objects.append(SceneObject(int(boxes.ids[k]), name, box))
        yield Scene(
            image_id,
            image_file,
            width,
            height,
            captions=captions.get(image_id, ()),
            objects=tuple(objects),
            regions=tuple(regions),
        )
    if not seen:
        raise UserError(
            f'{what} {path} has no list "images" with pictures in it; give a file in COCO\'s '
            "instances format."
        )
    for image_id, rows in boxes.rows_of.items():
        quarantine.add(
            f"image {image_id}", f"no usable entry in images: {len(rows)} annotations left out"
        )


def _read_boxes(
    path: PathLike, what: str, names: Mapping[int, str], quarantine: Quarantine
) -> _Boxes:
    whole, corners, crowds = array("q"), array("d"), array("b")
    for number, row in enumerate(stream_under(path, what, "annotations"), start=1):
        try:
            key = _annotation_key(row, number, names)
            x, y, w, h = fields.four_numbers(row, "bbox")
        except ValueError as problem:
            quarantine.add(f"{path}, annotation {number}", str(problem))
            continue
        whole.extend(key)
        corners.extend((x, y, x + w, y + h))
        crowds.append(bool(row.get("iscrowd")))
    keys = np.frombuffer(whole, np.int64).reshape(-1, 3)
    images = keys[:, 0]
    order = np.argsort(images, kind="stable")
    found, starts = np.unique(images[order], return_index=True)
    edges = [*starts.tolist(), len(order)]
    return _Boxes(
        ids=keys[:, 1],
        categories=keys[:, 2],
        corners=np.frombuffer(corners, np.float64).reshape(-1, 4),
        crowds=np.frombuffer(crowds, np.int8),
        rows_of={
            int(image_id): order[start:end]
            for image_id, (start, end) in zip(found, pairwise(edges), strict=True)
        },
    )


def _annotation_key(row: Any, number: int, names: Mapping[int, str]) -> tuple[int, int, int]:
    """The annotation's picture, id (its place in the file, if it has none) and category."""
    category = fields.integer(row, "category_id")
    if category not in names:
        raise ValueError(f'"category_id" is not in categories: {category}')
    own = fields.integer(row, "id") if "id" in row else number
    return fields.integer(row, "image_id"), own, category
