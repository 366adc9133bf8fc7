"""`svit <job>`: thin; each job's code lives in its room, and only the chosen one is imported."""

import argparse
from collections.abc import Sequence
from typing import Any

from svit_jax.cli.convert import convert_job
from svit_jax.cli.data import data_jobs
from svit_jax.cli.job import add_job, ending, show
from svit_jax.cli.plan import plan_job
from svit_jax.cli.train import train_job

_BENCHMARKS = (
    "vqav2, gqa, mme, pope, referring, scienceqa, seedbench, mmbench, mmbench_cn, textvqa, vizwiz, "
    "mmmu"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one job. Returns 0 on success, 1 on an error that the user can mend, 2 on wrong usage
    (argparse), 130 when interrupted, 143 when training was stopped by SIGTERM. Training that
    hangs ends the process with 75, and 76 where another process of its job was lost."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    given = all(text.startswith("--") and "." in text.partition("=")[0] for text in rest)
    if rest and (options.job not in ("train", "plan") or not given):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.overrides = [text.removeprefix("--") for text in rest]
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
    plan_job(jobs)
    _eval(jobs)
    _score(jobs)
    _chat(jobs)
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


def _eval(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.api import load
        from svit_jax.evaluation.run import evaluate, scores

        assistant = load(options.checkpoint, batch_size=options.batch_size)
        runs = evaluate(
            assistant.answerer(options.max_new_tokens),
            assistant.identity(options.max_new_tokens),
            options.benchmark,
            options.data,
            options.images,
            options.out,
            options.blank,
        )
        found = scores(runs)
        lines = [
            f"{name}: "
            + (
                ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
                or f"no public truth; upload what is in {options.out}"
            )
            for name, figures in found.items()
        ]
        show(options, found, "\n".join(lines))

    job = add_job(
        jobs,
        "eval",
        run,
        "answer a benchmark's official files, write the submission, score where truth is public",
        "svit eval --checkpoint run --benchmark vqav2 --data benchmarks/vqav2 --images images "
        "--out results",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument("--benchmark", nargs="+", required=True, help=_BENCHMARKS)
    job.add_argument(
        "--data", required=True, help="the benchmark's folder, or the folder that holds it by name"
    )
    job.add_argument("--images", required=True, help="the pictures' folder")
    job.add_argument("--out", required=True, help="answers, submissions and scores go here")
    job.add_argument("--blank", action="store_true", help="show a blank in place of each picture")
    job.add_argument("--batch-size", type=int, default=16)
    job.add_argument("--max-new-tokens", type=int, default=128)


def _score(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.evaluation.answers import read_answers
        from svit_jax.evaluation.registry import find_benchmark

        benchmark = find_benchmark(options.benchmark)
        questions = benchmark.read(options.data, None)
        scores = benchmark.score(questions, read_answers(options.predictions, questions))
        figures = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        show(options, scores, f"{options.benchmark}: {figures}")

    job = add_job(
        jobs,
        "score",
        run,
        "score an existing file of answers (our JSONL, LLaVA's, or a benchmark's own results)",
        "svit score --benchmark pope --predictions answers.jsonl --data benchmarks/pope",
    )
    job.add_argument("--benchmark", required=True, help=_BENCHMARKS)
    job.add_argument("--predictions", required=True, help="the answers file, or the results")
    job.add_argument("--data", required=True, help="the benchmark's folder")


def _chat(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.chat import chat
        from svit_jax.inference.sampler import Sampling

        sampling = Sampling(options.temperature, options.top_p, options.seed)
        chat(options.checkpoint, options.image, options.max_new_tokens, sampling)

    job = add_job(
        jobs,
        "chat",
        run,
        "talk about a picture in the terminal; answers stream, questions follow one another",
        "svit chat --checkpoint demo_run/finetune --image photo.jpg",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument("--image", help="the picture to talk about")
    job.add_argument("--temperature", type=float, default=0.0)
    job.add_argument("--top-p", type=float, default=1.0)
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-new-tokens", type=int, default=256)
