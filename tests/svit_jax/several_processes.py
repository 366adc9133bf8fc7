"""`svit train`, or a script, as a job of several processes on this machine."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def started(
    processes: int, command: Sequence[str], logs: Path, devices: int = 1
) -> Iterator[list[subprocess.Popen]]:
    """`python command...` in so many processes of so many CPU devices, one job; what they write
    is in `logs`/N.log. Any that still run at the end are killed."""
    logs.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(processes),
    }
    job = []
    try:
        for process in range(processes):
            with (logs / f"{process}.log").open("w") as log:
                job.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        stdout=log,
                        stderr=log,
                        env={**environment, "JAX_PROCESS_ID": str(process)},
                    )
                )
        yield job
    finally:
        for each in job:
            each.kill()
            each.wait()


def codes(job: list[subprocess.Popen], seconds: float = 400) -> list[int]:
    """The exit codes; a process that takes longer is an error."""
    return [each.wait(timeout=seconds) for each in job]
