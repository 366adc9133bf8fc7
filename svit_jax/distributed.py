"""Several processes as one job: how they find each other, what one does for all, and how they end.

A single process is a job of its own: everything here then costs nothing.
"""

import contextlib
import dataclasses
import glob
import importlib.util
import itertools
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import note

LOST = 76
"""The exit code of a process whose job lost another one: all of them must be started again."""

_WEEK_MS = 7 * 24 * 3600 * 1000
_barriers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where a job's processes meet. What is None is found out by JAX, on Cloud TPU, Slurm and
    Open MPI; elsewhere all three are needed. A process that says nothing for `heartbeat` seconds
    is lost, and the job with it."""

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    heartbeat: int = 60

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Launch":
        """What JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say."""
        return cls(
            environment.get("JAX_COORDINATOR_ADDRESS"),
            _number(environment, "JAX_NUM_PROCESSES"),
            _number(environment, "JAX_PROCESS_ID"),
        )

    def with_options(self, **options: str | int | None) -> "Launch":
        """These fields in place of its own, wherever they are given."""
        given = {name: value for name, value in options.items() if value is not None}
        return dataclasses.replace(self, **given)  # type: ignore[arg-type]

    def wanted(self, environment: Mapping[str, str]) -> bool:
        """Whether this process belongs to a job of several.

        Raises UserError where what is given is contradictory or not enough.
        """
        given = {
            "coordinator": self.coordinator,
            "processes": self.processes,
            "process": self.process,
        }
        missing = [f"--{name}" for name, value in given.items() if value is None]
        launched = launched_as_one_of_several(environment)
        if missing and len(missing) < len(given) and not launched:
            raise UserError(
                f"{', '.join(missing)} is missing: outside Cloud TPU, Slurm and Open MPI a process "
                "of several needs --coordinator, --processes and --process."
            )
        if self.coordinator and not self.coordinator.rpartition(":")[2].isdigit():
            raise UserError(
                f"--coordinator is '{self.coordinator}'; write it as HOST:PORT, a free port of the "
                "host that runs process 0."
            )
        if self.processes is not None and not 0 <= (self.process or 0) < self.processes:
            raise UserError(
                f"--process is {self.process} of --processes={self.processes}; processes count "
                f"from 0 to {self.processes - 1}."
            )
        return launched or not missing


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise UserError(f"environment variable {name} is '{text}'; it must be a number.")
    return int(text)


def launched_as_one_of_several(environment: Mapping[str, str]) -> bool:
    """Whether Slurm's srun or Open MPI started this process beside others, or it runs on a Cloud
    TPU host, which may be one of a pod: JAX finds the others there by itself."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return True
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return True
    platforms = environment.get("JAX_PLATFORMS", "tpu").split(",")
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in platforms and bool(chips) and importlib.util.find_spec("libtpu") is not None


@contextlib.contextmanager
def job(launch: Launch, ending: Callable[[BaseException], int | None]) -> Iterator[None]:
    """Within it this process is one of the job's, if it is a job of several.

    An error then ends the process at once, with the exit code that `ending` has for it after saying
    what it was (None: it has none): a process that waited for the others at its end would
    keep them waiting for it. They lose it within `launch.heartbeat` seconds and end with `LOST`.
    """
    if not launch.wanted(os.environ):
        yield
        return
    try:
        _join(launch)
        yield
        barrier("the end")
    except BaseException as error:
        # Not sys.exit: JAX would wait for the others, and threads that hang would not let go.
        code = _end(error, ending)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(launch: Launch) -> None:
    note(f"joining the job's other processes at {launch.coordinator or 'the address JAX finds'}")
    try:
        jax.distributed.initialize(
            launch.coordinator,
            launch.processes,
            launch.process,
            heartbeat_timeout_seconds=launch.heartbeat,
            shutdown_timeout_seconds=launch.heartbeat,
        )
        # Devices are exchanged now, while nobody is busy with anything that takes long.
        jax.devices()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"this process could not join the job ({error}); check --coordinator, --processes and "
            "--process, and that all hosts were started and reach each other."
        ) from error


def _end(error: BaseException, ending: Callable[[BaseException], int | None]) -> int:
    code = ending(error)
    if code is not None:
        return code
    if is_of_the_others(error):
        reason = str(error).strip().partition("\n")[0][:300]
        print(
            f"svit: {name()} lost another process of the job, or could not reach it ({reason}); "
            "see what the others say, and run the same command again on all hosts.",
            file=sys.stderr,
        )
        return LOST
    traceback.print_exception(error)
    print("svit: this process failed, and ends the job.", file=sys.stderr)
    return 1


def is_of_the_others(error: object) -> bool:
    """Whether an error of JAX's runtime is of a peer, not of this process: what gRPC and Gloo
    say of a connection that ended, and the coordinator of a process that did."""
    signs: tuple[str, ...] = ("Gloo",)  # whose errors come as ValueErrors, too
    if isinstance(error, jax.errors.JaxRuntimeError):
        signs += ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "peer", "heartbeat")
    elif not isinstance(error, ValueError):
        return False
    return any(sign in str(error) for sign in signs)


def name() -> str:
    """What errors call this process."""
    return f"process {jax.process_index()} of {jax.process_count()} ({socket.gethostname()})"


def alone() -> bool:
    return jax.process_count() == 1


def place() -> int:
    """Which of the job's processes this is, from 0."""
    return jax.process_index()


def count() -> int:
    return jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Returns when every process has come here. However long that takes: a process that is lost
    makes it fail, and a job that hangs is for the watchdog."""
    ocp.multihost.get_barrier_sync_fn()(key=f"svit {next(_barriers)} {what}", timeout_ms=_WEEK_MS)


def by_first(what: str, function: Callable[[], object]) -> None:
    """Runs the function in the first process, while the others wait. Its UserError is raised in
    all of them."""
    if alone():
        function()
        return
    problem = ""
    if is_first():
        try:
            function()
        except UserError as error:
            problem = str(error)
    barrier(what)
    (problem, *_) = gather(problem)
    if problem:
        raise UserError(problem)


def gather(text: str) -> list[str]:
    """Every process's text, by process. All of them must call this at the same time."""
    found = text.encode()
    lengths = multihost_utils.process_allgather(np.int32(len(found)))
    padded = np.zeros(max(1, int(lengths.max())), np.uint8)
    padded[: len(found)] = np.frombuffer(found, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def from_first(text: str) -> str:
    """The first process's text; the others' is not looked at. All must call this at the same
    time."""
    found = text.encode() if is_first() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(found))))
    padded = np.zeros(max(1, length), np.uint8)
    padded[: len(found)] = np.frombuffer(found, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(padded)[:length]).decode()


class Sum:
    """Sums of small numbers over all processes, without waiting: `start` one, `read` it later."""

    def __init__(self) -> None:
        devices = jax.devices()
        mesh = Mesh(np.array(devices), ("device",), axis_types=(AxisType.Auto,))
        self._place = devices.index(jax.local_devices()[0])
        self._sharding = NamedSharding(mesh, P("device"))
        self._sum = jax.jit(lambda x: x.sum(axis=0), out_shardings=NamedSharding(mesh, P()))

    def start(self, values: Sequence[int]) -> jax.Array:
        shape = (self._sharding.mesh.size, len(values))
        mine = np.zeros(shape, np.int32)
        mine[self._place] = values
        spread = jax.make_array_from_callback(shape, self._sharding, lambda index: mine[index])
        return self._sum(spread)

    def read(self, total: jax.Array) -> tuple[int, ...]:
        return tuple(jax.device_get(total).tolist())
