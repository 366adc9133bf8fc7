"""A small model with random parameters, and prompts for it."""

import jax
import numpy as np

from svit_jax.inference.engine import Engine, Prompt
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, Svit
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

FLOAT32 = Compute("float32")
NEVER = -1
"""An eos id that no token has."""


def make_engine(model: Svit, batch_size: int, eos_id: int = NEVER, **more) -> Engine:
    """On one device."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    parameters = flat_parameters(model)
    return Engine(model.config, parameters, FLOAT32, mesh, Rules(), eos_id, batch_size, **more)


def make_prompt(model: Svit, seed: int, length: int, pictures: int = 1) -> Prompt:
    rng = np.random.default_rng(seed)
    vision = model.config.vision
    index = np.full(length, -1, np.int32)
    for m in range(pictures):
        start = 2 + m * (vision.patches + 1)
        index[start : start + vision.patches] = m * vision.patches + np.arange(vision.patches)
    size = vision.image_size
    return Prompt(
        rng.integers(3, model.config.decoder.vocab, length).astype(np.int32),
        index,
        rng.integers(0, 256, (pictures, size, size, 3)).astype(np.uint8),
    )
