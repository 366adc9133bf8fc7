"""SIGTERM, which announces that the machine is about to be taken away."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

PREEMPTED = 128 + signal.SIGTERM
"""The exit code of a run that SIGTERM stopped, as shells have it: 143."""

_STARTING = "stopped by SIGTERM while starting; run the same command again to go on."
_UNWIND_SECONDS = 5.0


class PreemptedError(SystemExit):
    """The run was told to stop; what it had done is saved. Uncaught, it exits with `PREEMPTED`."""

    def __init__(self, text: str):
        super().__init__(text)
        self.code = PREEMPTED


class Preemption:
    """Within it SIGTERM raises PreemptedError at once, and after `defer` only sets `requested`, so
    that the loop can save first. Outside the main thread, where no signal arrives, it does
    nothing.

    Python acts on a signal between two of its instructions, so a compilation of minutes would
    outlast any grace time: where SIGTERM finds the run starting, with nothing to save, and it has
    not ended after a few seconds, the process is ended from another thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._starting = True
        self._raises = True
        self._left = threading.Event()
        self._restore: Callable[[], None] | None = None

    def defer(self) -> None:
        self._starting = self._raises = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, after `defer`, SIGTERM breaks off what is under way, so that the loop can save
        in time. It does not begin where the signal came before."""
        if self.requested:
            raise PreemptedError("stopped by SIGTERM.")
        try:
            self._raises = True
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._raises and not again:
            raise PreemptedError(_STARTING)

    def _end_start(self, woken: int) -> None:
        while number := os.read(woken, 1):
            if number[0] != signal.SIGTERM or self._left.wait(_UNWIND_SECONDS):
                continue
            if self._starting:
                print(f"svit: {_STARTING}", file=sys.stderr, flush=True)
                os._exit(PREEMPTED)

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            handler = signal.signal(signal.SIGTERM, self._handle)
            woken, wake = os.pipe()
            os.set_blocking(wake, False)
            before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
            thread = threading.Thread(target=self._end_start, args=(woken,), daemon=True)
            thread.start()

            def restore() -> None:
                signal.signal(signal.SIGTERM, handler)
                signal.set_wakeup_fd(before)
                self._left.set()
                os.close(wake)
                thread.join()
                os.close(woken)

            self._restore = restore
        return self

    def __exit__(self, *error: object) -> None:
        if self._restore is not None:
            self._restore()
