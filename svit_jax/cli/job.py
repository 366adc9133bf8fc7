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
