"""A whole model small enough for loops, every parameter random, so that no scale or bias hides."""

import jax
import numpy as np
import pytest

from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.svit import Svit, SvitConfig, abstract_model
from svit_jax.models.vision_tower import VisionConfig

# Grouped queries, and no two sizes alike, so that a swapped axis is an error.
DECODER = DecoderConfig(vocab=37, embed=20, layers=2, heads=6, kv_heads=3, head_dim=8, mlp=28)
VISION = VisionConfig(
    image_size=12,
    patch_size=4,
    embed=24,
    layers=3,
    heads=4,
    mlp=44,
    image_mean=(0.48, 0.45, 0.4),
    image_std=(0.26, 0.27, 0.28),
)


@pytest.fixture(scope="session")
def small_config() -> SvitConfig:
    return SvitConfig(VISION, DECODER)


@pytest.fixture(scope="session")
def small_parameters(small_config) -> dict[str, np.ndarray]:
    """By path, float64 values that float32 holds exactly."""
    rng = np.random.default_rng(0)
    shapes = flat_parameters(abstract_model(small_config))
    values = {}
    for path, shape in sorted(shapes.items()):
        offset = 1.0 if path.endswith("scale") else 0.0
        drawn = offset + 0.3 * rng.standard_normal(shape.shape)
        values[path] = drawn.astype(np.float32).astype(np.float64)
    return values


@pytest.fixture(scope="session")
def small_model(small_config, small_parameters) -> Svit:
    arrays = {path: jax.numpy.asarray(v, "float32") for path, v in small_parameters.items()}
    return with_parameters(abstract_model(small_config), arrays)
