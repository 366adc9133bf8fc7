"""What every job of the command line has: help with an example, `--json`, a result, an ending."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import strict_json
from svit_jax.training.preemption import PREEMPTED, PreemptedError

Run = Callable[[argparse.Namespace], None]

MESH_HELP = "devices along each axis, as in fsdp=4,tensor=2 (all of them along fsdp by default)"


def add_job(jobs: Any, name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser:
    job = jobs.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job.add_argument("--json", action="store_true", help="print the result as JSON")
    job.set_defaults(run=run)
    return job


def add_int8(job: Any) -> None:
    job.add_argument(
        "--int8",
        default="none",
        choices=("none", "weights", "all"),
        help="round the decoder's weights to 8 bits, or these and the cache",
    )


def add_hosts(job: argparse.ArgumentParser) -> None:
    """The options of a job that may be one of several processes."""
    hosts = job.add_argument_group(
        "several processes",
        "Start the same command on every host. Cloud TPU, Slurm's srun and Open MPI's mpirun say "
        "the rest; elsewhere these do, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID.",
    )
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0's host")
    hosts.add_argument("--processes", type=int, help="how many there are")
    hosts.add_argument("--process", type=int, help="which of them this is, from 0")
    hosts.add_argument(
        "--heartbeat-seconds",
        type=int,
        help="a process that says nothing for so long is lost, and the job with it",
    )


def launch(options: argparse.Namespace) -> Any:
    """Where the job's processes meet, by those options and the environment."""
    from svit_jax.distributed import Launch

    return Launch.from_environment(os.environ).with_options(
        coordinator=options.coordinator,
        processes=options.processes,
        process=options.process,
        heartbeat=options.heartbeat_seconds,
    )


def show(options: argparse.Namespace, result: Any, line: str) -> None:
    """The job's result: one readable line, or with --json the whole of it."""
    if options.json:
        plain = isinstance(result, type) or not dataclasses.is_dataclass(result)
        value = result if plain else dataclasses.asdict(result)
        print(json.dumps(strict_json(value), ensure_ascii=False, default=str))
    else:
        print(line)


def ending(error: BaseException) -> int | None:
    """The exit code of a job that ended with this error, after saying so; None: it is a bug."""
    if isinstance(error, UserError):
        print(f"svit: {error}", file=sys.stderr)
        return 1
    if isinstance(error, KeyboardInterrupt):
        print("svit: interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    if isinstance(error, PreemptedError):
        print(f"svit: {error}", file=sys.stderr)
        return PREEMPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return None
