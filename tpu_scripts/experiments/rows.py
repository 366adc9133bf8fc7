"""Rows run one after another on this host, beside the other hosts: measured once, or failed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, write_json
from svit_jax.planning.sweep.children import said_reason

LOST, PREEMPTED, INTERRUPTED = 76, 143, 130
_STOPPING = (PREEMPTED, INTERRUPTED)
_LAST_LINES = 200
_HUNG = "it hung: no step ended in train.hang_seconds; stacks.txt in its folder says where"

Command = Callable[[str], Sequence[str]]
"""The command that measures the row of this name, and writes `row_file`."""


class StopError(Exception):
    """No row's end, but this host's or the whole sweep's: the same command goes on."""

    def __init__(self, code: int):
        super().__init__(f"stopped with {code}")
        self.code = code


class Rows:
    """The rows' files in `folder`, which all `hosts` share, and what each comes to.

    A row that failed has a file for each host with what it ended with. Hosts go on to the next row
    together, when all files are there: one that still holds the last row's devices can't join it.
    `patience`: seconds until the other hosts have noticed that one failed.
    """

    def __init__(self, folder: PathLike, hosts: int = 1, patience: float = 300.0):
        self.folder, self.hosts, self.patience = epath.Path(folder), hosts, patience
        self._me = f"{socket.gethostname()}-{os.getpid()}"

    def row_file(self, name: str) -> epath.Path:
        return self.folder / "rows" / f"{name}.json"

    def workdir(self, name: str) -> epath.Path:
        return self.folder / "runs" / name

    def measured(self, name: str) -> dict[str, Any] | None:
        file = self.row_file(name)
        return read_json(file, "measured row") if file.exists() else None

    def failure(self, name: str) -> str | None:
        """Why the row failed; None where it did not. The reason is that of a host with one of its
        own: the others only lost it."""
        endings = self._endings(name)
        own = [text for code, text in endings if code != LOST]
        return own[0] if own else None

    def run(self, name: str, command: Sequence[str]) -> None:
        """Measures a row, unless that was done or failed before.

        Raises StopError where the whole sweep is to stop (SIGTERM, Ctrl-C, a host that is gone),
        and UserError where the hosts don't share the folder.
        """
        if self.row_file(name).exists() or self.failure(name):
            return
        code, reason = _watched(command)
        if code in _STOPPING:
            raise StopError(code)
        if self.row_file(name).exists():
            return
        if code == 0:
            raise UserError(
                f"the row was measured, and {self.row_file(name)} is not there: all hosts must "
                "share the folder of --out."
            )
        mine = self._failures(name) / f"{self._me}.json"
        write_json(mine, {"code": code, "reason": reason})
        together = self._others_ended(name)
        if self.failure(name) is None:
            mine.unlink()
            raise StopError(LOST)
        if not together:
            raise StopError(LOST)

    def _others_ended(self, name: str) -> bool:
        end = time.monotonic() + self.patience
        while len(self._endings(name)) < self.hosts:
            if time.monotonic() > end:
                return False
            time.sleep(min(2.0, self.patience / 100))
        return True

    def _endings(self, name: str) -> list[tuple[int, str]]:
        files = sorted(self._failures(name).glob("*.json"))
        found = [read_json(file, "failed row") for file in files]
        return [(row["code"], row["reason"]) for row in found]

    def _failures(self, name: str) -> epath.Path:
        return self.folder / "rows" / f"{name}.failed"


def _watched(command: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and the reason of a failure, from what it wrote to standard
    error, which is shown as it comes."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child, _passed_on(child):
        assert child.stderr
        for line in child.stderr:
            sys.stderr.write(line)
            last.append(line)
    code = child.returncode
    if code < 0:
        ended_by = signal.Signals(-code)
        if ended_by in (signal.SIGTERM, signal.SIGINT):
            return 128 - code, ""
        return 128 - code, f"its process was ended by {ended_by.name}"
    if code == 75:
        return code, _HUNG
    return code, said_reason("".join(last)) or f"its process ended with {code}"


@contextlib.contextmanager
def _passed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """Within it a SIGTERM of this process is the child's, which ends in order; so is Ctrl-C, which
    a terminal sends to both."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            child.send_signal(number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
