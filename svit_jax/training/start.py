"""The state that a run starts with: new, of another run, or its own newest checkpoint's."""

import dataclasses
from typing import Any

import jax

from data_pipeline.common.errors import UserError
from data_pipeline.loading.plan import Plan
from svit_jax.checkpoints.manager import (
    Checkpoints,
    check_parameters,
    load_parameters,
    newest_checkpoint,
    stored_parameters,
)
from svit_jax.models.lora import is_lora
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.training.faults import SkippedSteps
from svit_jax.training.optimizer import trainable_paths
from svit_jax.training.settings import RunConfig
from svit_jax.training.state import StatePlan, TrainState


def _without_new_lora(init: str, abstract: dict[str, Any]) -> dict[str, Any]:
    """What of a model is to be found in the checkpoint: all, or, in one without LoRA, the base."""
    if any(map(is_lora, stored_parameters(newest_checkpoint(init)))):
        return abstract
    return {path: shape for path, shape in abstract.items() if not is_lora(path)}


def check_init(config: RunConfig) -> None:
    """Raises UserError where `checkpoint.init` cannot start this model: before it is compiled."""
    init, fresh = config.checkpoint.init, config.checkpoint.fresh
    if init != "scratch":
        shapes = flat_parameters(abstract_model(config.model))
        check_parameters(newest_checkpoint(init), _without_new_lora(init, shapes))
        trainable_paths(fresh, shapes, "checkpoint.fresh")


def initial_state(config: RunConfig, plan: StatePlan) -> TrainState:
    """Step 0, as `checkpoint.init` says."""
    init, fresh = config.checkpoint.init, config.checkpoint.fresh
    if init == "scratch":
        return plan.from_scratch(config.model, config.train.seed)
    abstract = plan.abstract.parameters()
    found = _without_new_lora(init, abstract)
    parameters = load_parameters(newest_checkpoint(init), found)
    new = (abstract.keys() - found.keys()) | trainable_paths(fresh, abstract, "checkpoint.fresh")
    if new:
        parameters |= plan.initial_parameters(config.model, config.train.seed, new)
    return plan.from_parameters(parameters)


def restore_newest(
    checkpoints: Checkpoints, plan: StatePlan, data: Plan
) -> tuple[TrainState, SkippedSteps, int]:
    """The state of the newest checkpoint that can be read, with its step."""
    abstract = plan.abstract
    parameters, optimizer, metadata = checkpoints.restore_newest(
        {**abstract.trained, **abstract.frozen}, abstract.optimizer
    )
    step = metadata["step"]
    if metadata["plan"] != data.inputs.identity:
        raise UserError(
            f"checkpoint {checkpoints.folder / str(step)} was trained on another data plan; "
            "restore the dataset, tokenizer and data settings, or start a new workdir with "
            "checkpoint.init."
        )
    state = dataclasses.replace(
        plan.from_parameters(parameters),
        step=jax.device_put(jax.numpy.int32(step), plan.shardings.step),
        optimizer=optimizer,
    )
    return state, SkippedSteps(**metadata.get("skipped", {})), step
