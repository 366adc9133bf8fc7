"""What trains, at which rate, and what frozen parts cost: the projector alone, a subset, all."""

import jax
import numpy as np
import pytest
from test_step_on_meshes import random_batch

from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.program import compile_run

# Parameters outweigh activations by far, so that gradients are seen in what the step needs.
SHAPE = (
    "data.batch_size=2",
    "data.row_length=32",
    "data.pictures_per_row=1",
    "train.loss_groups=0",
    "train.loss_chunk=8",
    "model.decoder.mlp=4096",
    "optim.warmup_ratio=0",
)
MODES = {
    "projector": "projector/.*",
    "subset": "decoder/blocks/(q|k),projector/fc2,tower/.*",
    "all": ".*",
}
RATES = {"decoder/blocks/q": 1e-3, "tower/.*": 1e-4}


@pytest.fixture(scope="module")
def compiled_modes(make_run):
    found = {}
    for mode, trainable in MODES.items():
        rates = [f"{pattern}={rate}" for pattern, rate in RATES.items()]
        overrides = [f"optim.rates={','.join(rates)}"] if mode == "subset" else []
        config = make_run("pretrain", *SHAPE, f"optim.trainable={trainable}", *overrides)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        found[mode] = (config, *compile_run(config, 10, mesh))
    return found


def test_frozen_parts_have_no_gradient_and_no_moments(compiled_modes):
    arguments, temporary, trained = {}, {}, {}
    for mode, (_, plan, placement, step) in compiled_modes.items():
        memory = step.memory_analysis()
        sizes = {path: shape.size for path, shape in plan.abstract.parameters().items()}
        trained[mode] = sum(sizes[path] for path in plan.trainable)
        batch = sum(x.size * x.dtype.itemsize for x in placement.shapes.values())
        state = memory.argument_size_in_bytes - batch
        # Four bytes for each parameter, and twice four for a trained one's moments; then counters.
        assert 0 <= state - 4 * sum(sizes.values()) - 8 * trained[mode] < 100, mode
        arguments[mode], temporary[mode] = state, memory.temp_size_in_bytes
    assert trained["projector"] < trained["subset"] < trained["all"] / 10
    # The gradient's norm is known before the first update: all of the gradient exists at once.
    assert temporary["all"] > 4 * trained["all"]
    assert temporary["projector"] < temporary["all"] - 4 * (trained["all"] - trained["projector"])


def test_a_subset_by_pattern_moves_at_its_rates(compiled_modes):
    """Adam's first step is the rate, in the direction of the gradient's sign."""
    config, plan, placement, step = compiled_modes["subset"]
    state = plan.from_scratch(config.model, 0)
    before = jax.device_get(state.parameters())
    state, _ = step(state, placement.put(random_batch(config)))
    after = jax.device_get(state.parameters())
    for path, value in before.items():
        moved = np.abs(after[path] - value).max()
        rate = config.optim.learning_rate
        if path.startswith("tower/"):
            rate = 1e-4
        elif path not in ("decoder/blocks/k", "projector/fc2"):
            rate = 1e-3 if path == "decoder/blocks/q" else 0
        # Softmax ignores what all scores share: the keys' bias has rounding for a gradient.
        if path != "tower/blocks/k_bias":
            assert moved == pytest.approx(rate, rel=0.02), path
