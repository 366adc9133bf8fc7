"""A run that hangs says where it hangs and ends, so that whoever started it can start it again."""

import faulthandler
import os
import sys
import tempfile
import threading
import time

from data_pipeline.common.files import PathLike, write_text

HUNG = 75
"""The exit code of a run that hung: EX_TEMPFAIL of sysexits.h, "try again"."""


class Watchdog:
    """Within it, `seconds` without a `beat` write the stacks of all threads to standard error and
    to `path`, and end the process with `HUNG`. 0 seconds watch nothing."""

    def __init__(self, seconds: float, path: PathLike):
        self.seconds = seconds
        self.path = path
        self._last = time.monotonic()
        self._done = threading.Event()

    def beat(self) -> None:
        """Something got done: a step, an evaluation, a save."""
        self._last = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self.beat()
        if self.seconds > 0:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while (left := self._last + self.seconds - time.monotonic()) > 0:
            if self._done.wait(left):
                return
        print(
            f"svit: nothing got done in {self.seconds:g} seconds (train.hang_seconds); the stacks "
            f"are in {self.path}.",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=sys.stderr)
        # Last, and whatever becomes of it: the disk may be what hangs.
        exit_anyway = threading.Timer(10, os._exit, [HUNG])
        exit_anyway.start()
        try:
            # It writes to local files alone.
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file=file)
                file.seek(0)
                write_text(self.path, file.read())
        finally:
            # Not sys.exit: threads that hang would keep the process alive.
            os._exit(HUNG)
