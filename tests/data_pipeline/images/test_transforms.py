import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.images import transforms
from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD, PAD_COLOUR


def synthetic_pixels(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [(3 * x + 5 * y) % 256, (7 * x + 2 * y) % 256, (x * y) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def normalise_reference(image: np.ndarray) -> np.ndarray:
    """What the CLIP processor does after resizing, in its order and its precision."""
    scaled = image.astype(np.float32) * np.float32(1 / 255)
    return (scaled - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)


# Vectors made with LLaVA's own code (transformers 4.37.2).
# width, height, mode, channel means, channel deviations, {(row, column): the three channels}
VECTORS = [
    (
        500,
        333,
        "pad",
        (0.042969, 0.104893, 0.198851),
        (0.854984, 0.875959, 0.510442),
        {(0, 0): (-0.011255, -0.011196, -0.001333), (168, 168): (-1.047743, -1.166794, -0.356835)},
    ),
    (
        500,
        333,
        "crop",
        (0.070175, 0.162796, 0.301869),
        None,
        {(0, 0): (1.857344, -0.686545, -1.48022), (168, 168): (-1.120735, -1.226825, -1.124718)},
    ),
    (
        333,
        500,
        "pad",
        (0.042694, 0.103696, 0.198867),
        None,
        {(168, 168): (1.375596, 0.288959, -0.356835)},
    ),
    (
        640,
        480,
        "pad",
        (0.048861, 0.119076, 0.226576),
        None,
        {(168, 168): (-0.113443, 0.709177, -0.129313)},
    ),
    (
        336,
        336,
        "pad",
        (0.069947, 0.159351, 0.295297),
        None,
        {(0, 0): (-1.792263, -1.752097, -1.48022)},
    ),
]


@pytest.mark.parametrize("width,height,mode,means,deviations,points", VECTORS)
def test_prepare_equals_the_reference_vectors(width, height, mode, means, deviations, points):
    image = transforms.prepare(encode(synthetic_pixels(width, height)), 336, mode, "synthetic")
    assert image.dtype == np.uint8 and image.shape == (336, 336, 3)
    normal = normalise_reference(image).astype(np.float64)
    np.testing.assert_allclose(normal.mean((0, 1)), means, atol=1e-6)
    if deviations is not None:
        np.testing.assert_allclose(normal.std((0, 1)), deviations, rtol=1e-5)
    for point, expected in points.items():
        np.testing.assert_allclose(normal[point], expected, atol=1e-6)


def test_the_pad_colour_is_the_mean_rounded_down():
    assert PAD_COLOUR == (122, 116, 104)


@pytest.mark.parametrize("width,height,offset", [(5, 2, (0, 1)), (2, 5, (1, 0)), (4, 4, (0, 0))])
def test_padding_puts_the_picture_at_the_floored_middle(width, height, offset):
    pixels = synthetic_pixels(width, height)
    square = np.asarray(transforms.pad_to_square(Image.fromarray(pixels)))
    expected = np.empty((max(width, height),) * 2 + (3,), np.uint8)
    expected[:] = (122, 116, 104)
    left, top = offset
    expected[top : top + height, left : left + width] = pixels
    np.testing.assert_array_equal(square, expected)


def test_cropping_keeps_the_middle_of_the_long_side():
    pixels = synthetic_pixels(9, 4)
    # At its own short side nothing is resampled: columns (9 - 4) // 2 .. + 4 are what is left.
    cropped = np.asarray(transforms.resize_and_crop(Image.fromarray(pixels), 4))
    np.testing.assert_array_equal(cropped, pixels[:, 2:6])


def test_exif_rotation_is_ignored():
    pixels = synthetic_pixels(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert transforms.decode_picture(encode(pixels, "JPEG", exif=exif), "turned").size == (6, 4)


def test_every_mode_becomes_rgb():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    image = np.asarray(transforms.decode_picture(encode(grey), "grey"))
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=-1))
    rgba = np.dstack([synthetic_pixels(4, 3), np.full((3, 4), 7, np.uint8)])
    image = np.asarray(transforms.decode_picture(encode(rgba), "transparent"))
    np.testing.assert_array_equal(image, rgba[..., :3])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_each_format_is_read(kind):
    data = encode(np.full((3, 5, 3), 255, np.uint8), kind)
    assert transforms.decode_picture(data, kind).getextrema() == ((255, 255),) * 3


def claim_png_size(data: bytes, width: int, height: int) -> bytes:
    """The same PNG with another size in its (correctly summed) header."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


PNG = encode(synthetic_pixels(40, 30))
JPEG = encode(synthetic_pixels(40, 30), "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        PNG[: len(PNG) // 2],
        JPEG[: len(JPEG) // 2],
        JPEG[:20],
        PNG[:60] + bytes(20) + PNG[80:],
        claim_png_size(PNG, 400, 300),
        claim_png_size(PNG, 0, 30),
    ],
    ids=["empty", "html", "eps", "cut png", "cut jpeg", "header", "damaged", "lying", "no width"],
)
def test_broken_files_are_bad_records_with_one_sentence(data):
    with pytest.raises(BadRecordError, match=r"picture VG_100K/1\.jpg .*fetch it again") as caught:
        transforms.prepare(data, 336, "pad", "VG_100K/1.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="counts and limits memory as Linux does")
def test_hostile_files_are_refused_in_bounded_memory():
    """In a process of its own, whose address space is limited and whose peak is its own."""
    program = Path(__file__).with_name("hostile_pictures.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    accepted = {name for name, answer, *_ in rows if answer == "(336, 336, 3)"}
    assert accepted == {
        "png with more pixels than it says",
        "gif of 400 frames",
        "png of 9000x9000, half",
    }
    assert len(rows) >= 20
    for name, answer, risen, _ in rows:
        assert answer.startswith(f"picture {name} ") or name in accepted
        assert risen < (700 if name == "png of 9000x9000, half" else 64), name


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 400), (9_460, 9_460)])
def test_decompression_bombs_are_refused_before_decoding(size):
    with pytest.raises(BadRecordError, match=r"picture bomb"):
        transforms.decode_picture(claim_png_size(PNG, *size), "bomb")


@pytest.mark.parametrize(("width", "height"), [(5000, 10), (10, 5000), (1, 9_000), (9_000, 1)])
def test_a_sliver_is_cut_as_if_it_were_resized_whole(width, height):
    image = Image.fromarray(synthetic_pixels(width, height))
    size = 24
    long = int(size * max(width, height) / min(width, height))
    whole = image.resize((long, size) if width > height else (size, long), Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in whole.size)
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    np.testing.assert_array_equal(np.asarray(transforms.resize_and_crop(image, size)), expected)


def test_a_strip_at_a_time_gives_the_same_pixels(monkeypatch):
    image = Image.fromarray(synthetic_pixels(10, 300))
    whole = np.asarray(transforms.resize_and_crop(image, 24))
    monkeypatch.setattr(transforms, "_STRIP_PIXELS", 5 * 720)
    np.testing.assert_array_equal(np.asarray(transforms.resize_and_crop(image, 24)), whole)


def test_padding_a_palette_before_it_is_rgb():
    """The reference's canvas has the padding's colour for its palette, and nothing else."""
    indices = np.array([[0, 1, 2, 0], [3, 0, 1, 1]], np.uint8)
    image = Image.frombytes("P", (4, 2), indices.tobytes())
    image.putpalette(list(range(10, 22)))
    expected = np.zeros((4, 4, 3), np.uint8)
    expected[[0, 3]] = (122, 116, 104)
    expected[1:3][indices == 0] = (122, 116, 104)
    np.testing.assert_array_equal(np.asarray(transforms.pad_to_square(image)), expected)


def test_an_unknown_mode_is_a_user_error():
    # The type checker of the test run would refuse the mode before the code sees it.
    unchecked = getattr(transforms.prepare, "__wrapped__", transforms.prepare)
    with pytest.raises(UserError, match="'square', which is unknown; choose pad or crop"):
        unchecked(PNG, 336, "square", "picture")


def test_real_photographs_are_prepared(real_data):
    for path in sorted((real_data / "photos").iterdir()):
        for mode in ("pad", "crop"):
            assert transforms.prepare(path.read_bytes(), 56, mode, path.name).shape == (56, 56, 3)
