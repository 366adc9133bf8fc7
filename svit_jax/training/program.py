"""The compiled program of a run: its state's plan, its batch's placement, its step."""

import math
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from data_pipeline.loading.plan import Plan
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.training.optimizer import make_optimizer, trainable_paths
from svit_jax.training.settings import RunConfig
from svit_jax.training.state import StatePlan, plan_state
from svit_jax.training.step import compile_step


def total_steps(config: RunConfig, plan: Plan) -> int:
    return config.train.steps or math.ceil(config.train.epochs * len(plan) / config.data.batch_size)


def plan_run(config: RunConfig, steps: int, mesh: Mesh | AbstractMesh) -> StatePlan:
    """The plan of a run's state; nothing is compiled, and the mesh's devices need not be there."""
    paths = flat_parameters(abstract_model(config.model))
    trainable = trainable_paths(config.optim.trainable, paths)
    optimizer = make_optimizer(config.optim, steps, trainable)
    frozen_dtype = config.compute.frozen_dtype
    return plan_state(config.model, trainable, optimizer, mesh, config.rules, frozen_dtype)


def compile_run(config: RunConfig, steps: int, mesh: Mesh) -> tuple[StatePlan, BatchPlacement, Any]:
    """The state's plan, the batch's placement and the compiled step of a run."""
    plan, rules, data = plan_run(config, steps, mesh), config.rules, config.data
    shapes = batch_shapes(
        data.batch_size, data.row_length, data.pictures_per_row, config.model.vision.image_size
    )
    placement = BatchPlacement(mesh, rules, shapes)
    chunk, seed = config.train.loss_chunk, config.train.seed
    step = compile_step(plan, config.compute, chunk, mesh, rules, placement.abstract(), seed)
    return plan, placement, step
