"""The compiled program of a run: its state's plan, its batch's placement, its step."""

import math
from collections.abc import Callable, Iterable

from jax.sharding import AbstractMesh, Mesh

from data_pipeline.loading.plan import Plan
from svit_jax.batch import Batch, BatchPlacement, batch_shapes
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.rules import parts
from svit_jax.training.accumulation import check_split
from svit_jax.training.objective import check_groups
from svit_jax.training.optimizer import make_optimizer, trainable_paths
from svit_jax.training.settings import RunConfig
from svit_jax.training.state import StatePlan, TrainState, plan_state
from svit_jax.training.step import Metrics, compile_step

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def total_steps(config: RunConfig, plan: Plan) -> int:
    return config.train.steps or math.ceil(config.train.epochs * len(plan) / config.data.batch_size)


def plan_run(config: RunConfig, steps: int, mesh: Mesh | AbstractMesh) -> StatePlan:
    """The plan of a run's state; nothing is compiled, and the mesh's devices need not be there."""
    paths = flat_parameters(abstract_model(config.model))
    trainable = trainable_paths(config.optim.trainable, paths)
    optimizer = make_optimizer(config.optim, steps, trainable)
    frozen_dtype = config.compute.frozen_dtype
    return plan_state(config.model, trainable, optimizer, mesh, config.rules, frozen_dtype)


def compile_run(
    config: RunConfig, steps: int, mesh: Mesh, lengths: Iterable[int] = ()
) -> tuple[StatePlan, BatchPlacement, Step]:
    """The state's plan, the batch's placement and the step of a run, compiled for each length that
    its batches may have (`lengths`; without any, for data.row_length)."""
    plan, rules, data = plan_run(config, steps, mesh), config.rules, config.data
    settings = config.train
    check_split(data.batch_size, settings.accumulate, parts(mesh, rules.batch))
    check_groups(data.batch_size, settings.loss_groups)
    compiled: dict[int, Step] = {}
    for length in tuple(lengths) or (data.row_length,):
        shapes = batch_shapes(
            data.batch_size, length, data.pictures_per_row, config.model.vision.image_size
        )
        placement = BatchPlacement(mesh, rules, shapes)
        compiled[length] = compile_step(
            plan, config.compute, settings, mesh, rules, placement.abstract()
        )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return compiled[batch.tokens.shape[1]](state, batch)

    # Any of the placements will do: hosts have the same rows of a batch of any length.
    return plan, placement, step if len(compiled) > 1 else compiled.popitem()[1]
