"""Picture files of many sizes and modes, the same bytes for the same seed and Pillow."""

import io
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIZES = [
    *[(1, 1), (1, 2), (2, 1), (1, 50), (50, 1), (5000, 10), (10, 5000), (3, 3), (336, 336)],
    *[(335, 336), (337, 336), (336, 335), (672, 336), (500, 333), (333, 500), (640, 480)],
]
KINDS = [
    *["RGB png", "RGB jpeg", "RGB progressive", "RGB exif", "RGB webp", "RGB bmp"],
    *["RGBA png", "P png", "P gif", "P transparent", "L png", "L jpeg", "LA png", "1 png"],
    *["I;16 png", "CMYK jpeg", "RGBA webp"],
]


def pixels(rng: np.random.Generator, width: int, height: int, channels: int) -> np.ndarray:
    """Smooth waves with noise: both long and short ranges matter to a resize."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = rng.uniform(0.005, 0.4, (channels, 2))
    values = [np.sin(a * x + b * y) for a, b in waves]
    noisy = 127 + 90 * np.stack(values, axis=-1) + rng.normal(0, 25, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def picture_file(kind: str, width: int, height: int, seed: int) -> bytes:
    """A picture file; `kind` is a mode and how it is stored, one of KINDS."""
    rng = np.random.default_rng(seed)
    mode, stored = kind.split()
    options: dict = {}
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 1 << 16, (height, width), dtype=np.uint16))
    elif mode == "1":
        image = Image.fromarray(pixels(rng, width, height, 1)[..., 0] > 127)
    elif mode == "P":
        image = Image.fromarray(pixels(rng, width, height, 3)).quantize(32)
    else:
        data = pixels(rng, width, height, len(mode)).tobytes()
        image = Image.frombytes(mode, (width, height), data)
    if stored == "progressive":
        stored, options = "jpeg", {"progressive": True, "quality": 80}
    elif stored == "exif":
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(2, 9))
        stored, options = "jpeg", {"exif": exif}
    elif stored == "transparent":
        stored, options = "png", {"transparency": 3}
    elif stored == "webp":
        options = {"lossless": True}
    file = io.BytesIO()
    image.save(file, stored.upper(), **options)
    return file.getvalue()


def many_pictures(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, file) of every size in SIZES and every kind in KINDS, and then of random ones."""
    rng = random.Random(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        if number < len(SIZES):
            width, height = SIZES[number]
        else:
            width, height = (int(2 ** rng.uniform(3, 9.3)) for _ in "xy")
        yield f"{number}: {kind} {width}x{height}", picture_file(kind, width, height, number)
