"""SIGTERM, which announces that the machine is about to be taken away."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

PREEMPTED = 128 + signal.SIGTERM
"""The exit code of a run that SIGTERM stopped, as shells have it: 143."""


class PreemptedError(SystemExit):
    """The run was told to stop; what it had done is saved. Uncaught, it exits with `PREEMPTED`."""

    def __init__(self, text: str):
        super().__init__(text)
        self.code = PREEMPTED


class Preemption:
    """Within it SIGTERM raises PreemptedError at once, and after `defer` only sets `requested`, so
    that the loop can save first. Outside the main thread, where no signal arrives, it does
    nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._before: Any = None

    def defer(self) -> None:
        self._deferred = True

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, after `defer`, the signal raises all the same: for work that may be left
        unfinished. It does not begin where the signal came before."""
        if self.requested:
            raise PreemptedError("stopped by SIGTERM.")
        self._deferred = False
        try:
            yield
        finally:
            self._deferred = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferred:
            raise PreemptedError(
                "stopped by SIGTERM while starting; run the same command again to go on."
            )

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
