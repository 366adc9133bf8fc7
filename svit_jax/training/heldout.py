"""Loss and accuracy on records that the run does not train on."""

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from data_pipeline.common.quarantine import Quarantine
from svit_jax.batch import Batch, BatchPlacement, batch_shapes
from svit_jax.sharding.rules import active_rules
from svit_jax.training.inputs import Inputs
from svit_jax.training.objective import Sums, batch_sums
from svit_jax.training.settings import RunConfig
from svit_jax.training.state import StatePlan, TrainState


def open_heldout(config: RunConfig, workdir: epath.Path) -> Inputs:
    """The records of `data.heldout`, planned as the training data are."""
    data = dataclasses.replace(
        config.data, train=config.data.heldout, split=config.data.heldout_split
    )
    return Inputs.open(dataclasses.replace(config, data=data), workdir / "heldout", keep_plan=False)


def heldout_hook(
    config: RunConfig,
    workdir: epath.Path,
    inputs: Inputs,
    plan: StatePlan,
    placement: BatchPlacement,
    mesh: Mesh,
) -> Callable[[int, TrainState], dict[str, float]]:
    """A hook that goes once over all held-out rows: `heldout_loss` (mean over their target tokens),
    `heldout_accuracy`, `heldout_target_tokens`. Compiled here, for each length of its batches."""
    rows, batch_size = len(inputs.plan), config.data.batch_size
    batches = math.ceil(rows / batch_size)

    def sums(parameters: dict[str, jax.Array], batch: Batch) -> Sums:
        with active_rules(mesh, config.rules):
            model = plan.model_with(parameters)
            return batch_sums(model, batch, config.compute, config.train.loss_chunk)

    def compiled_for(length: int) -> Callable[[dict[str, jax.Array], Batch], Sums]:
        data = config.data
        size = config.model.vision.image_size
        shapes = batch_shapes(batch_size, length, data.pictures_per_row, size)
        batch = BatchPlacement(mesh, config.rules, shapes).abstract()
        return jax.jit(sums).lower(plan.abstract.parameters(), batch).compile()

    lengths = tuple(inputs.plan.lengths) or (config.data.row_length,)
    compiled = {length: compiled_for(length) for length in lengths}

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        parameters = state.parameters()
        bad = Quarantine(workdir / "heldout" / "bad_records.jsonl")
        total = np.zeros(len(Sums._fields))
        for loaded in inputs.loader(config, placement.local_rows, 0, batches):
            for name, reason in zip(loaded.bad, loaded.reasons, strict=True):
                bad.add(name, reason)
            # The last batch runs on into a second pass over the rows, which must not count.
            places = loaded.step * batch_size + np.array(placement.local_rows)
            loaded.batch.loss_weights[places >= rows] = 0
            batch = placement.put(loaded.batch)
            found = compiled[batch.tokens.shape[1]](parameters, batch)
            total += np.array(jax.device_get(found), np.float64)
        if len(bad):
            bad.save()
        loss, weight, correct = total
        return {
            "heldout_loss": float(loss / max(weight, 1.0)),
            "heldout_accuracy": float(correct / max(weight, 1.0)),
            "heldout_target_tokens": float(weight),
        }

    return evaluate
