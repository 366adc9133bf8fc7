"""What a conversion must know of a picture: its path in the images folder and its size."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from data_pipeline.annotations.scene import read_scenes
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.common.json_stream import stream_list
from data_pipeline.common.progress import progress

_WHAT = "pictures' sizes"


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """`image` is relative to the images folder (`vg/VG_100K/1.jpg`); sizes are pixels."""

    image: str
    width: int
    height: int


def read_pictures(path: PathLike, prefix: str = "") -> dict[int, Picture]:
    """The pictures of a scenes file or of Visual Genome's image_data.json, by image id.

    image_data.json is told by its being a JSON list; the folder of a picture (VG_100K or VG_100K_2)
    is the one in its `url`. `prefix` stands before all paths. Raises UserError naming a row that
    gives no size or no path.
    """
    found = require_file(path, _WHAT)
    with found.open("rb") as file:
        is_list = file.read(64).lstrip().startswith(b"[")
    read = _image_data if is_list else _scenes
    return {
        image_id: Picture(f"{prefix}{image}", width, height)
        for image_id, image, width, height in progress(read(path), "read sizes", unit="picture")
    }


def _scenes(path: PathLike) -> Iterator[tuple[int, str, int, int]]:
    for scene in read_scenes(path):
        yield scene.image_id, scene.image_file, scene.width, scene.height


def _image_data(path: PathLike) -> Iterator[tuple[int, str, int, int]]:
    for number, row in enumerate(stream_list(path, _WHAT, "Visual Genome's image_data.json"), 1):
        yield _image_entry(row, f"{path}, row {number},")


def _image_entry(row: Any, place: str) -> tuple[int, str, int, int]:
    try:
        # Version 1.0 calls the id "id".
        image_id = row["image_id"] if "image_id" in row else row["id"]
        folder, name = row["url"].split("?")[0].split("/")[-2:]
        width, height = row["width"], row["height"]
        if not all(isinstance(value, int) and value > 0 for value in (image_id, width, height)):
            raise ValueError(f"id {image_id!r}, size {width!r}x{height!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{_WHAT} {place} give no picture ({error!r}); expected Visual Genome's "
            'image_data.json, with "image_id", "url", "width" and "height".'
        ) from None
    return image_id, f"{folder}/{name}", width, height
