"""Stand-in pictures for annotations whose photographs are not at hand."""

import hashlib
import io
from collections.abc import Iterable

from etils import epath
from PIL import Image, ImageDraw, ImageFont

from data_pipeline.annotations.scene import PixelBox, Scene
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike, open_atomic
from data_pipeline.common.progress import progress

_PAPER = (225, 225, 225)


def draw_stand_ins(scenes: Iterable[Scene], images_folder: PathLike) -> int:
    """Draws `images_folder/<image_file>` for each scene that has none; returns how many it drew.

    A stand-in has the picture's true size and shows every object's box as a labelled rectangle, the
    same colour for the same name, so that boxes and names can be looked at. Existing files are left
    alone. Raises BadRecordError where a scene's image_file leads out of the folder.
    """
    folder = epath.Path(images_folder)
    drawn = 0
    for scene in progress(scenes, "drawing stand-ins", unit="picture"):
        if scene.image_file.startswith("/") or ".." in scene.image_file.split("/"):
            raise BadRecordError(
                f"scene {scene.image_id} has image_file {scene.image_file}, which leads out of the "
                "images folder; give a path within it, such as VG_100K/1.jpg."
            )
        path = folder / scene.image_file
        if path.exists():
            continue
        buffer = io.BytesIO()
        _draw(scene).save(buffer, "PNG" if path.suffix.lower() == ".png" else "JPEG", quality=90)
        with open_atomic(path, "wb") as file:
            file.write(buffer.getvalue())
        drawn += 1
    return drawn


def _draw(scene: Scene) -> Image.Image:
    picture = Image.new("RGB", (scene.width, scene.height), _PAPER)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(8, min(scene.width, scene.height) // 32))
    # Large boxes first: small ones would vanish under them.
    things = sorted(scene.objects, key=lambda thing: -_area(thing.box))
    for thing in things:
        box = thing.box
        pen.rectangle((box.x1, box.y1, box.x2 - 1, box.y2 - 1), _colour(thing.name), (0, 0, 0))
    for thing in things:
        label = " ".join((*thing.attributes, thing.name))
        pen.text((thing.box.x1 + 2, thing.box.y1 + 1), label, (0, 0, 0), font)
    return picture


def _area(box: PixelBox) -> int:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _colour(name: str) -> tuple[int, int, int]:
    """A light colour that depends on the name alone."""
    red, green, blue = hashlib.sha256(name.encode()).digest()[:3]
    return 110 + red * 140 // 255, 110 + green * 140 // 255, 110 + blue * 140 // 255
