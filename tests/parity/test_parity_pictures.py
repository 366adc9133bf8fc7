"""Pictures against transformers' PIL-based CLIP processor, and against the reference's padding.

The class is CLIPImageProcessorPil in transformers 5 (where CLIPImageProcessor resizes with
torchvision, to other pixels) and CLIPImageProcessor in transformers 4. Transformers 5 lays
transparent pictures on white; when the checkpoints were trained, transparency was dropped, so here
the processor is given pictures that Pillow has converted. What 4.37.2 itself makes of them is
stored in tests/reference/pictures.npz.
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from jaxtyping import Array
from pictures import many_pictures
from PIL import Image

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from data_pipeline.images.transforms import prepare

SIZE = 336
MODES = ["pad", "crop"]


@pytest.fixture(scope="module")
def processor():
    major = int(transformers.__version__.split(".")[0])
    name = "CLIPImageProcessorPil" if major >= 5 else "CLIPImageProcessor"
    return getattr(transformers, name)(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )


def opened(data: bytes) -> Image.Image:
    return rgb(Image.open(io.BytesIO(data)))


def rgb(image: Image.Image) -> Image.Image:
    """Converted, and without the note of a transparent colour that Pillow keeps beside it."""
    return Image.fromarray(np.asarray(image.convert("RGB")))


def padded(image: Image.Image) -> Image.Image:
    """LLaVA's square, with Pillow's own idea of what the colour is in the picture's mode."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), tuple(int(x * 255) for x in IMAGE_MEAN))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def reference(processor, image: Image.Image, **options) -> np.ndarray:
    values = processor(images=[image], return_tensors="np", **options)["pixel_values"][0]
    return np.asarray(values).transpose(1, 2, 0)


def unscaled(processor, image: Image.Image) -> np.ndarray:
    return reference(processor, image, do_rescale=False, do_normalize=False)


@jax.jit
def normalised_on_the_device(images: Array) -> Array:
    """What svit_jax.models.vision_tower does first."""
    mean = jnp.asarray(IMAGE_MEAN).reshape(1, 1, 1, 3)
    std = jnp.asarray(IMAGE_STD).reshape(1, 1, 1, 3)
    return (images.astype(jnp.float32) * (1 / 255) - mean) / std


@functools.cache
def generated() -> list[tuple[str, bytes]]:
    return list(many_pictures(seed=0, count=200))


@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_sizes_and_modes(processor, differences, mode):
    for name, data in generated():
        image = opened(data)
        given = padded(image) if mode == "pad" else image
        ours = prepare(data, SIZE, mode, name)
        expected = unscaled(processor, given)
        differences.absolute(f"200 pictures, {mode}: uint8", ours, expected, 0, name)


def real_pictures(real_data) -> list:
    folders = [real_data / "photos", real_data / "benchmarks" / "textvqa"]
    found = sorted(path for folder in folders for path in folder.glob("*.jpg"))
    assert found
    return found


@pytest.mark.parametrize("mode", MODES)
def test_real_photographs(processor, differences, real_data, mode):
    for path in real_pictures(real_data):
        image = opened(path.read_bytes())
        given = padded(image) if mode == "pad" else image
        ours = prepare(path.read_bytes(), SIZE, mode, path.name)
        what = f"photographs, {mode}"
        differences.absolute(f"{what}: uint8", ours, unscaled(processor, given), 0, path.name)
        floats = np.asarray(normalised_on_the_device(ours[None]))[0]
        expected = reference(processor, given)
        differences.absolute(f"{what}: normalised", floats, expected, 1e-6, path.name)


def test_normalising_every_value_of_every_channel(processor, differences):
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    expected = reference(processor, Image.fromarray(ramp), do_resize=False, do_center_crop=False)
    floats = np.asarray(normalised_on_the_device(ramp[None]))[0]
    differences.absolute("256 values a channel: normalised", floats, expected, 1e-6)


def test_pictures_padded_before_they_are_rgb(processor, differences):
    """As the reference's evaluation of ScienceQA and MMBench pads them, where Pillow lets it."""
    seen = set()
    for name, data in generated():
        image = Image.open(io.BytesIO(data))
        if image.mode not in ("RGB", "RGBA", "P", "CMYK"):
            continue
        expected = unscaled(processor, rgb(padded(image)))
        ours = prepare(data, SIZE, "pad", name, pad_unconverted=True)
        differences.absolute("padded unconverted: uint8", ours, expected, 0, name)
        seen.add(image.mode)
    assert len(seen) == 4
