"""A small model with random parameters."""

import jax
import pytest

from svit_jax.models.svit import Svit, initial_model


@pytest.fixture(scope="module")
def model(make_run) -> Svit:
    config = make_run("finetune", "model.decoder.kv_heads=4").model
    return jax.jit(lambda: initial_model(config, 3))()
