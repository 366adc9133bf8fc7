"""Which checkpoints stay: the newest few, every so many steps one for good, and the best."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import note


@dataclasses.dataclass(frozen=True)
class Retention:
    """The newest `keep` checkpoints stay; so do, where asked for, those of steps that `keep_every`
    divides and the one that is best by a metric: `best` is "min:loss", "max:accuracy" or the like.
    """

    keep: int = 2
    keep_every: int = 0
    best: str = ""

    def __post_init__(self) -> None:
        if self.keep < 1 or self.keep_every < 0:
            raise UserError(
                f"checkpoint.keep is {self.keep} and checkpoint.keep_every {self.keep_every}; "
                "keep at least 1, and every 0 (none for good) or more steps."
            )
        mode, _, metric = self.best.partition(":")
        if self.best and (mode not in ("min", "max") or not metric):
            raise UserError(
                f"checkpoint.best is '{self.best}'; write min: or max: and the metric's name "
                "(min:loss)."
            )

    @property
    def metric(self) -> str:
        """The name of the metric that `best` judges by, "" where nothing is judged."""
        return self.best.partition(":")[2]

    def badness(self, metrics: Mapping[str, float] | None) -> float:
        """Smaller is better; infinite where the metric is absent or not finite."""
        value = (metrics or {}).get(self.metric, math.nan)
        signed = value if self.best.startswith("min:") else -value
        return signed if math.isfinite(signed) else math.inf

    def judged(self, metrics: Mapping[str, float] | None) -> dict[str, float] | None:
        """What is kept beside a checkpoint to judge it by later; None where nothing is judged."""
        if not self.best or not metrics:
            return None
        if self.metric not in metrics:
            # No error: what is measured now and then may not have been measured yet.
            note(
                f"checkpoint.best is '{self.best}', but the metrics so far are "
                f"{', '.join(sorted(metrics))}: this checkpoint counts as the worst."
            )
        return {name: float(value) for name, value in metrics.items()}

    def options(self) -> Any:
        """Orbax's options that keep just these, and clear away what a killed run left half
        written."""
        kept: list[Any] = [policies.LatestN(self.keep)]
        if self.keep_every:
            kept.append(policies.EveryNSteps(self.keep_every))
        if self.best:
            best = policies.BestN(
                get_metric_fn=self.badness,
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            kept.append(best)
        return ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            # Orbax keeps metrics beside a checkpoint only where it has this function.
            best_fn=self.badness if self.best else None,
            best_mode="min",
            cleanup_tmp_directories=True,
        )
