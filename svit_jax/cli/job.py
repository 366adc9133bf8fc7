"""What every job of the command line has: help with an example, `--json`, a result to show."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from data_pipeline.common.files import strict_json

Run = Callable[[argparse.Namespace], None]


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
