"""Ten steps of stage 2 against a loop in torch: AdamW, cosine with warmup, two learning rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity_samples import Sample, batch_of, llava_inputs, random_sample
from torch_reference import SHAPES, our_parameters, random_llava
from transformers import get_cosine_schedule_with_warmup

from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.optimizer import OptimConfig, make_optimizer, trainable_paths
from svit_jax.training.settings import TrainConfig
from svit_jax.training.state import plan_state
from svit_jax.training.step import compile_step

STEPS, ROWS, LENGTH, PICTURES = 10, 4, 64, 2
OPTIM = OptimConfig(
    learning_rate=1e-2,
    trainable=("projector/.*", "decoder/.*"),
    rates=("projector/.*=3e-3",),
    warmup_ratio=0.3,
    weight_decay=0.02,
)
"""Rates 500 times those of stage 2: ten steps must change a model of this size."""


@pytest.fixture(scope="module")
def config() -> SvitConfig:
    return SHAPES["grouped"]


@pytest.fixture(scope="module")
def batches(config) -> list[list[Sample]]:
    rng = np.random.default_rng(9)
    shapes = ((11, 0), (9, 1), (23, 1), (14, 2))
    return [[random_sample(config, rng, w, m) for w, m in shapes] for _ in range(STEPS)]


def torch_losses(reference, config, batches) -> list[float]:
    """As LLaVA's trainer: two groups of parameters, the tower without gradients, no clipping."""
    reference.model.vision_tower.requires_grad_(False)
    projector = list(reference.model.multi_modal_projector.parameters())
    decoder = [*reference.model.language_model.parameters(), *reference.lm_head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": decoder}, {"params": projector, "lr": 3e-3}],
        lr=OPTIM.learning_rate,
        betas=(OPTIM.b1, OPTIM.b2),
        eps=OPTIM.eps,
        weight_decay=OPTIM.weight_decay,
    )
    warmup = -int(-OPTIM.warmup_ratio * STEPS // 1)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, STEPS)
    losses = []
    for samples in batches:
        optimizer.zero_grad()
        loss = reference(**llava_inputs(config, samples)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def our_losses(parameters, config, batches) -> tuple[list[float], dict[str, np.ndarray]]:
    mesh, rules = make_mesh(MeshConfig(), jax.devices()[:1]), Rules()
    paths = trainable_paths(OPTIM.trainable, flat_parameters(abstract_model(config)))
    plan = plan_state(config, paths, make_optimizer(OPTIM, STEPS, paths), mesh, rules)
    shapes = batch_shapes(ROWS, LENGTH, PICTURES, config.vision.image_size)
    placement = BatchPlacement(mesh, rules, shapes)
    step = compile_step(
        plan, Compute("float32"), TrainConfig(loss_chunk=16), mesh, rules, placement.abstract()
    )
    state = plan.from_parameters({p: jnp.asarray(v) for p, v in parameters.items()})
    losses = []
    for samples in batches:
        batch = batch_of(config, [[sample] for sample in samples], LENGTH, PICTURES)
        state, metrics = step(state, placement.put(batch))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.parameters())


def test_ten_steps_of_stage_2(config, batches, differences):
    reference = random_llava(config, seed=10)
    before = our_parameters(reference, config)
    with torch.no_grad():
        untrained = [float(reference(**llava_inputs(config, some)).loss) for some in batches]
    expected = torch_losses(reference, config, batches)
    found, after = our_losses(before, config, batches)
    differences.absolute("loss of ten AdamW steps", found, expected, 1e-4)
    # Far more than the tolerance: the steps changed what the model says.
    assert np.abs(np.subtract(found, untrained)).mean() > 0.1
    for path, value in our_parameters(reference, config).items():
        moved = np.abs(after[path] - before[path]).max()
        assert (moved == 0) == path.startswith("tower/"), path
        differences.absolute("parameters after ten AdamW steps", after[path], value, 1e-4, path)
