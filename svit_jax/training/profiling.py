"""A window of steps under the profiler, written as a trace."""

import contextlib
from typing import Any

import jax
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import note


class ProfileWindow:
    """Traces the steps `first` to `last`, both included and numbered as in the metrics, into
    `folder`: as TensorBoard's profiler reads it, and as a Perfetto trace. None traces nothing."""

    def __init__(self, window: tuple[int, int] | None, folder: epath.Path):
        self._window, self._folder = window, folder
        self._tracing = False

    def require_within(self, start: int, steps: int) -> None:
        """Raises UserError where none of the steps that are still to do is in the window."""
        if self._window and not (self._window[0] <= steps and self._window[1] > start):
            first, last = self._window
            raise UserError(
                f"--profile-steps {first}:{last} holds none of the steps {start + 1} to {steps} "
                "that this run has yet to do; choose some of them."
            )

    def before(self, step: int) -> None:
        if self._window and not self._tracing and self._window[0] <= step <= self._window[1]:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._tracing = True

    def annotation(self, step: int) -> Any:
        """Marks the step in the trace."""
        if self._tracing:
            return jax.profiler.StepTraceAnnotation("train", step_num=step)
        return contextlib.nullcontext()

    def after(self, step: int, state: Any) -> None:
        """Ends the trace with its last step; waits for the devices to have done it."""
        if self._tracing and self._window and step == self._window[1]:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            note(f"the profiler's trace is in {self._folder}.")
