"""Plans made by child processes: a compiler's memory and crashes stay theirs, several at a time."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from svit_jax.planning.plan import Plan
from svit_jax.planning.sweep.grid import Candidate

GIB = 2**30
FIRST_GUESS = 4 * GIB
"""What a child is taken to need until the first has ended."""

_LONGEST_REASON = 300
_OWN = re.compile(r"^svit: (.+)", re.M)
# The message after a traceback: "some.module.Error: text".
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Exit): ?(.+)", re.M)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A plan, or why there is none; the most memory that making it took (0: not known).

    `final`: asked again, it would be the same."""

    plan: Plan | None
    reason: str = ""
    peak: int = 0
    final: bool = True


Planner = Callable[[Candidate], Answer]


class ChildPlanner:
    """Plans a candidate with a command that prints the plan as JSON (`svit plan --json`)."""

    def __init__(self, command: Callable[[Candidate], Sequence[str]]):
        self._command = command
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, candidate: Candidate) -> Answer:
        # libtpu lets one process of a machine load it, unless told that none wants its TPUs.
        environment = os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            # In a session of its own, so that Ctrl-C reaches the sweep alone, which ends it.
            child = subprocess.Popen(
                self._command(candidate),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
            with self._listed(child.pid):
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            return _answer(child.returncode, out.read(), errors.read(), usage.ru_maxrss * 1024)

    @contextlib.contextmanager
    def _listed(self, pid: int) -> Iterator[None]:
        with self._lock:
            self._running.add(pid)
            if self._stopped:
                _end(pid)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(pid)

    def stop(self) -> None:
        """Ends the children that run, and any that starts from now on."""
        with self._lock:
            self._stopped = True
            for pid in self._running:
                _end(pid)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _answer(code: int, out: str, errors: str, peak: int) -> Answer:
    if code == 0:
        try:
            return Answer(Plan.from_json(json.loads(out.splitlines()[-1])), peak=peak)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"the planner printed no plan ({type(error).__name__}: {error})"
            return Answer(None, reason, peak, final=False)
    if code < 0:
        name = signal.Signals(-code).name
        reason = f"the planner was ended by {name}"
        if code == -signal.SIGKILL:
            reason += ", perhaps because the machine ran out of memory: try --jobs 1"
        return Answer(None, reason, peak, final=False)
    own = _OWN.search(errors) is not None  # another error may be the machine's, and pass
    return Answer(None, said_reason(errors) or f"the planner ended with {code}", peak, final=own)


def said_reason(errors: str) -> str:
    """The error in what a program wrote: the command line's own sentence, or the exception's."""
    found = _OWN.findall(errors) or _RAISED.findall(errors) or errors.strip().splitlines()
    reason = found[-1].strip() if found else ""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."


def available_memory() -> int:
    """Bytes that new processes of this machine could have; 0 where it doesn't say."""
    try:
        with open("/proc/meminfo") as file:
            found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.M)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


class Room:
    """How many children may run beside each other: no more than `most` (cores), and than memory
    allows when each takes as much as the largest so far. One may always run."""

    def __init__(self, most: int, available: Callable[[], int] = available_memory):
        self.most, self._available = most, available
        self._budget = available()  # while none runs
        self._need = 0

    def learn(self, peak: int) -> None:
        self._need = max(self._need, peak)

    def admits(self, running: int) -> bool:
        """Whether one more may start beside so many that run."""
        if running == 0:
            return True
        need = self._need or FIRST_GUESS
        # What runs may still grow: the budget counts all of it, whatever it has taken by now.
        return (
            running < self.most
            and (running + 1) * need <= self._budget
            and need <= self._available()
        )
