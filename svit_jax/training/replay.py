"""A batch without a finite loss or gradient, met again, and each of its rows alone."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_jsonl
from data_pipeline.common.progress import progress
from svit_jax.checkpoints.manager import Checkpoints
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.faults import NON_FINITE_FILE
from svit_jax.training.inputs import Inputs
from svit_jax.training.program import compile_run, total_steps
from svit_jax.training.settings import RunConfig
from svit_jax.training.start import initial_state, restore_newest
from svit_jax.training.workdir import owns_workdir


@dataclasses.dataclass(frozen=True)
class ReplayedRow:
    """What a row of the batch gives when no other row has a loss. `records` names its records."""

    row: int
    records: tuple[str, ...]
    loss: float
    gradient_norm: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclasses.dataclass(frozen=True)
class Replay:
    """`metrics` are those of the whole batch, as the run had them."""

    step: int
    metrics: dict[str, float]
    rows: tuple[ReplayedRow, ...]

    def __str__(self) -> str:
        bad = [f"row {r.row} ({', '.join(r.records)})" for r in self.rows if not r.finite]
        return (
            f"step {self.step}: loss {self.metrics['loss']:g}, gradient norm "
            f"{self.metrics['gradient_norm']:g}; not finite by themselves: "
            f"{'; '.join(bad) or 'none of the rows'}"
        )


def replay(config: RunConfig, workdir: PathLike) -> Replay:
    """The last step of `non_finite.jsonl` again: the newest checkpoint is trained on to it, and
    nothing is written. The state is kept in the host's memory meanwhile, so it is a job for one
    process. Raises UserError where the run did not stop for such steps.
    """
    folder = epath.Path(workdir)
    settings = dataclasses.asdict(config)
    if not owns_workdir(folder, settings) or not (folder / NON_FINITE_FILE).exists():
        raise UserError(
            f"workdir {workdir} has no {NON_FINITE_FILE}; only a run that stopped for steps "
            "without a finite loss or gradient can be replayed."
        )
    dumped = list(read_jsonl(folder / NON_FINITE_FILE))[-1]
    last = dumped["step"]
    inputs = Inputs.open(config, folder, keep_plan=True)
    plan, placement, compiled = compile_run(
        config, total_steps(config, inputs.plan), make_mesh(config.mesh)
    )
    with Checkpoints(folder / "checkpoints", config.checkpoint.retention) as checkpoints:
        if checkpoints.latest_step():
            state, _, start = restore_newest(checkpoints, plan, inputs.plan)
        else:
            state, start = initial_state(config, plan), 0
    loader = inputs.loader(config, placement.local_rows, start, last)
    for _ in range(start, last - 1):
        state, _ = compiled(state, placement.put(next(loader).batch))
    batch = next(loader).batch
    kept = jax.device_get(state)

    def run(weights: np.ndarray) -> dict[str, float]:
        state = jax.device_put(kept, plan.shardings)
        weighted = placement.put(dataclasses.replace(batch, loss_weights=weights))
        return {name: float(value) for name, value in compiled(state, weighted)[1].items()}

    def alone(place: int, row: dict[str, Any]) -> ReplayedRow:
        only = np.zeros_like(batch.loss_weights)
        only[place] = batch.loss_weights[place]
        found = run(only)
        ids = tuple(dict.fromkeys(dialogue["id"] for dialogue in row["dialogues"]))
        return ReplayedRow(row["row"], ids, found["loss"], found["gradient_norm"])

    rows = enumerate(progress(dumped["rows"], f"step {last}", unit="row"))
    return Replay(last, run(batch.loss_weights), tuple(alone(n, row) for n, row in rows))
