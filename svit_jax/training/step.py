"""The training step: a pure function of state and batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from svit_jax.batch import Batch, with_fields
from svit_jax.models.svit import Compute
from svit_jax.sharding.rules import Rules, active_rules
from svit_jax.training.accumulation import accumulated
from svit_jax.training.compilation import compiled
from svit_jax.training.objective import batch_sums, normalised_weights
from svit_jax.training.settings import TrainConfig
from svit_jax.training.state import StatePlan, TrainState

Metrics = dict[str, jax.Array]


DROPOUT_STREAM = 2**31 - 1
"""Folded into the run's key, whose first numbers are for initial parameters."""


def dropout_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of a step's dropout: of seed and step alone, so that a resumed run draws the same."""
    stream = jax.random.fold_in(jax.random.key(seed), DROPOUT_STREAM)
    return jax.random.fold_in(stream, step)


def train_step(
    plan: StatePlan, compute: Compute, settings: TrainConfig, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """One update; metrics are device scalars: loss (normalised as `settings.loss_groups` says),
    token accuracy, target tokens, the gradient's global norm, and whether the step was skipped
    (1 or 0).

    Where loss or norm is not finite, parameters and optimizer state stay as they are, bit for bit;
    the step counts all the same, since it says which batch comes next.
    """
    weights: Any = batch.loss_weights
    # Divided by the whole batch's targets before it is cut up: sums over microbatches are then the
    # loss and gradient of the whole, however targets are spread over them.
    normalised = normalised_weights(weights, settings.loss_groups)
    dropout = dropout_key(settings.seed, state.step) if plan.model.config.lora else None

    def loss(trained: dict[str, jax.Array], batch: Batch, key: Any) -> tuple[jax.Array, jax.Array]:
        model = plan.model_with({**trained, **state.frozen})
        sums = batch_sums(model, batch, compute, settings.loss_chunk, key)
        return sums.loss, sums.correct

    (total, correct), gradients = accumulated(
        jax.value_and_grad(loss, has_aux=True),
        state.trained,
        with_fields(batch, loss_weights=normalised),
        dropout,
        settings.accumulate,
        plan.shardings.trained,
    )
    updates, optimizer = plan.optimizer.update(gradients, state.optimizer, state.trained)
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(total) & jnp.isfinite(norm)
    trained, optimizer = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (optax.apply_updates(state.trained, updates), optimizer),
        (state.trained, state.optimizer),
    )
    targets = weights.sum()
    metrics = {
        "loss": total,
        "accuracy": correct / jnp.maximum(targets, 1.0),
        "target_tokens": targets,
        "gradient_norm": norm,
        "skipped": 1.0 - finite,
    }
    return TrainState(state.step + 1, trained, state.frozen, optimizer), metrics


def compile_step(
    plan: StatePlan,
    compute: Compute,
    settings: TrainConfig,
    mesh: Mesh,
    rules: Rules,
    batch: Batch,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step compiled for this mesh and the abstract `batch`; the state's memory is reused."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with active_rules(mesh, rules):
            return train_step(plan, compute, settings, state, batch)

    jitted = jax.jit(step, donate_argnums=0, out_shardings=(plan.shardings, None))
    platform = mesh.devices.flat[0].platform
    return compiled(jitted.lower(plan.abstract, batch), settings.compiler_options, platform)
