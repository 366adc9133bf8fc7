"""Pictures against what the reference's CLIP processor made of them (tests/reference)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from data_pipeline.images.transforms import prepare

FIXTURE = Path(__file__).parents[2] / "reference" / "pictures.npz"
SIZE = 16


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("way", ["pad", "crop", "pad unconverted"])
def test_pixels_are_equal(stored, way):
    compared = 0
    for key, expected in stored.items():
        name, _, what = key.partition("/")
        if what == way:
            mode, *unconverted = way.split()
            data = stored[f"{name}/file"].tobytes()
            ours = prepare(data, SIZE, mode, name, pad_unconverted=bool(unconverted))
            np.testing.assert_array_equal(ours, expected, err_msg=key)
            compared += 1
    assert compared >= 20


def test_normalising_on_the_device(stored):
    """As svit_jax.models.vision_tower begins: each of 256 values in each channel."""

    @jax.jit
    def normalised(images):
        mean = jnp.asarray(IMAGE_MEAN).reshape(1, 1, 1, 3)
        std = jnp.asarray(IMAGE_STD).reshape(1, 1, 1, 3)
        return (images.astype(jnp.float32) * (1 / 255) - mean) / std

    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    found = np.asarray(normalised(ramp)).reshape(256, 3)
    np.testing.assert_allclose(found, stored["ramp"], rtol=0, atol=1e-6)
