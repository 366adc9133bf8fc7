"""What one process of a job meets and all must know: records that failed, and SIGTERM."""

import json
from collections import deque

import jax

from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.pipeline import Loaded
from svit_jax import distributed
from svit_jax.training.preemption import Preemption


class News:
    """Every process calls `tell` once a step and `hear` once for each of these, some steps later,
    so that no host waits for another. In a job of one process what is told is known at once.

    `stop` is True from the same step on in all processes once one of them got SIGTERM.
    """

    def __init__(self, bad: Quarantine, max_bad: int, preemption: Preemption):
        self._bad, self._max_bad, self._preemption = bad, max_bad, preemption
        self._sum = None if distributed.alone() else distributed.Sum()
        self._told: deque[tuple[Loaded, jax.Array]] = deque()
        self._failed: set[str] = set()
        self._stop = False

    @property
    def stop(self) -> bool:
        return self._preemption.requested if self._sum is None else self._stop

    def tell(self, loaded: Loaded) -> None:
        if self._sum is None:
            self._keep(loaded.step, list(zip(loaded.bad, loaded.reasons, strict=True)))
        else:
            counts = len(loaded.bad), int(self._preemption.requested)
            self._told.append((loaded, self._sum.start(counts)))

    def hear(self) -> None:
        """Takes in what all told of the oldest step that is not yet heard of.

        Raises UserError in all processes where more than `max_bad` records have failed.
        """
        if self._sum is None or not self._told:
            return
        loaded, total = self._told.popleft()
        failed, stopped = self._sum.read(total)
        self._stop = self._stop or stopped > 0
        if not failed:
            return
        told = distributed.gather(json.dumps(list(zip(loaded.bad, loaded.reasons, strict=True))))
        # Hosts that share rows met the same records: each counts once.
        found = dict(pair for text in told for pair in json.loads(text))
        self._keep(loaded.step, list(found.items()))
        self._failed |= found.keys()
        if len(self._failed) > self._max_bad:
            last, reason = list(found.items())[-1]
            raise UserError(
                f"step {loaded.step}: {len(self._failed)} bad records, more than the "
                f"{self._max_bad} allowed; the last is {last}: {reason} Mend them or raise "
                "data.max_bad."
            )

    def _keep(self, step: int, found: list[tuple[str, str]]) -> None:
        for name, reason in found:
            self._bad.add(name, reason, step=step)
        if found and distributed.is_first():
            self._bad.save()
