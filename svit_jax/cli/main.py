"""`svit <job>`: thin; each job's code lives in its room, and only the chosen one is imported."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from svit_jax.cli.convert import convert_job
from svit_jax.cli.data import data_jobs
from svit_jax.cli.doctor import doctor_job
from svit_jax.cli.eval import eval_jobs
from svit_jax.cli.job import MESH_HELP, add_int8, add_job, ending
from svit_jax.cli.judge import judge_job
from svit_jax.cli.plan import plan_job
from svit_jax.cli.serve import serve_job
from svit_jax.cli.train import train_job


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one job. Returns 0 on success, 1 on an error that the user can mend, 2 on wrong usage
    (argparse), 130 when interrupted, 143 when training was stopped by SIGTERM. Training that
    hangs ends the process with 75, and 76 where another process of its job was lost."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    given = all(text.startswith("--") and "." in text.partition("=")[0] for text in rest)
    if rest and (options.job not in ("train", "plan", "doctor") or not given):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.overrides = [text.removeprefix("--") for text in rest]
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options.run(options)
    except BaseException as error:
        code = ending(error)
        if code is None:
            raise
        return code
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="svit", description="SVIT: Scaling up Visual Instruction Tuning, in JAX."
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="job")
    _demo(jobs)
    data_jobs(jobs)
    convert_job(jobs)
    train_job(jobs)
    eval_jobs(jobs)
    judge_job(jobs)
    plan_job(jobs)
    doctor_job(jobs)
    _chat(jobs)
    serve_job(jobs)
    return parser


def _demo(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.demo import run_demo

        run_demo(options.workdir, options.config)

    job = add_job(
        jobs,
        "demo",
        run,
        "the whole path on the toy world: data, three training stages, evaluation, report",
        "svit demo --workdir demo_run",
    )
    job.add_argument("--workdir", default="demo_run", help="where everything is written")
    job.add_argument("--config", default="configs/toy.py", help="the toy stages' config file")


def _chat(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.chat import chat
        from svit_jax.inference.sampler import Sampling
        from svit_jax.sharding.mesh import parse_mesh

        sampling = Sampling(
            options.temperature,
            options.top_p,
            options.seed,
            options.top_k,
            options.repetition_penalty,
        )
        chat(
            options.checkpoint,
            options.image,
            options.max_new_tokens,
            sampling,
            options.stop,
            parse_mesh(options.mesh),
            options.int8,
            options.allow_urls,
        )

    job = add_job(
        jobs,
        "chat",
        run,
        "talk about a picture in the terminal; answers stream, questions follow one another",
        "svit chat --checkpoint demo_run/finetune --image photo.jpg",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument("--image", nargs="+", default=[], help="the pictures to talk about")
    job.add_argument(
        "--allow-urls", action="store_true", help="pictures may be addresses of the web, too"
    )
    job.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token always")
    job.add_argument("--top-k", type=int, default=0, help="only the k likeliest tokens (0: all)")
    job.add_argument("--top-p", type=float, default=1.0, help="only the likeliest of so much mass")
    job.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1: less of what was there"
    )
    job.add_argument("--seed", type=int, default=0)
    job.add_argument(
        "--stop", nargs="+", default=[], metavar="TEXT", help="texts that end an answer"
    )
    job.add_argument("--mesh", default="", help=MESH_HELP)
    add_int8(job)
    job.add_argument("--max-new-tokens", type=int, default=256)
