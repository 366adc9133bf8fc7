"""Pictures of toy scenes."""

import functools
import io
import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.toy_world.world import ToyScene

_SUPERSAMPLE = 3
_JPEG_QUALITY = 95


def draw_scene(scene: ToyScene) -> Image.Image:
    """The scene as an RGB picture of its size; each shape fills its object's box."""
    picture = _draw_background(scene)
    for thing in scene.objects:
        mask = _shape_mask(thing.shape, thing.box.x2 - thing.box.x1)
        picture.paste(thing.paint, thing.box, mask)
    return picture


def encode_scene(scene: ToyScene) -> bytes:
    """The drawn scene as a JPEG file's bytes, its colours at full resolution."""
    buffer = io.BytesIO()
    draw_scene(scene).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _draw_background(scene: ToyScene) -> Image.Image:
    first, second = (np.array(rgb, np.float32) for rgb in scene.background)
    across = np.linspace(0, 0.5, scene.width, dtype=np.float32)[None, :, None]
    down = np.linspace(0, 0.5, scene.height, dtype=np.float32)[:, None, None]
    pixels = first + (across + down) * (second - first)
    return Image.fromarray(pixels.round().astype(np.uint8))


@functools.cache
def _shape_mask(shape: str, side: int) -> Image.Image:
    """The shape's coverage (0..255) on a square of `side` pixels, drawn large and averaged down.

    Scenes place shapes on whole pixels only, so one mask a shape and size serves them all.
    """
    large = side * _SUPERSAMPLE
    mask = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(mask)
    end = large - 1
    if shape == "circle":
        pen.ellipse((0, 0, end, end), fill=255)
    elif shape == "ring":
        pen.ellipse((0, 0, end, end), fill=255)
        hole = round(large * 0.27)
        pen.ellipse((hole, hole, end - hole, end - hole), fill=0)
    elif shape == "cross":
        arm = round(large * 0.34)
        pen.rectangle((arm, 0, end - arm, end), fill=255)
        pen.rectangle((0, arm, end, end - arm), fill=255)
    else:
        pen.polygon([(x * end, y * end) for x, y in _outline(shape)], fill=255)
    return mask.reduce(_SUPERSAMPLE)


def _outline(shape: str) -> list[tuple[float, float]]:
    """The shape's corners, stretched to touch all four sides of the unit square."""
    if shape == "square":
        points = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    elif shape == "triangle":
        points = [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]
    elif shape == "diamond":
        points = [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
    elif shape == "star":
        points = []
        for k in range(10):
            radius = 1.0 if k % 2 == 0 else 0.40
            angle = math.pi * k / 5
            points.append((radius * math.sin(angle), -radius * math.cos(angle)))
    elif shape == "heart":
        # https://mathworld.wolfram.com/HeartCurve.html, the sixth curve, y downwards.
        points = []
        for k in range(60):
            t = 2 * math.pi * k / 60
            y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            points.append((16 * math.sin(t) ** 3, -y))
    else:
        raise ValueError(f"no outline for shape {shape!r}")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in points]
