"""`svit data <step>`: from annotations to shards; one file for each group of steps."""

import argparse
from typing import Any

from svit_jax.cli.data.annotate import annotate_job, toy_job
from svit_jax.cli.data.generate import generate_job
from svit_jax.cli.data.inspection import browse_job, check_job, stats_job
from svit_jax.cli.data.instructions import clean_job, convert_job
from svit_jax.cli.data.mixture import mix_job
from svit_jax.cli.data.recipe import select_job
from svit_jax.cli.data.records import shard_job, tokenizer_job


def data_jobs(jobs: Any) -> None:
    text = "from annotations to shards, a job a step"
    data = jobs.add_parser(
        "data",
        help=text,
        description=text,
        epilog="example:\n  svit data toy --out toy --scenes 4000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = data.add_subparsers(dest="step", required=True, metavar="step")
    toy_job(steps)
    annotate_job(steps)
    generate_job(steps)
    clean_job(steps)
    convert_job(steps)
    select_job(steps)
    mix_job(steps)
    shard_job(steps)
    tokenizer_job(steps)
    check_job(steps)
    stats_job(steps)
    browse_job(steps)
