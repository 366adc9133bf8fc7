"""`svit train`: the run, its benchmarks while it trains, and what it ends with."""

import argparse
import dataclasses
import functools
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from svit_jax.cli.job import add_hosts, add_job, ending, launch, show

_ENGINE_ROWS = 16
_GROUP = 8 * _ENGINE_ROWS
"""So many questions at a time go to the other processes, with their pictures."""


def train_job(jobs: Any) -> None:
    job = add_job(
        jobs,
        "train",
        _run,
        "train, or go on with, the run in a workdir",
        "svit train --config configs/toy.py:finetune --workdir run --data.train=dataset "
        "--data.tokenizer=tokenizer.model",
    )
    job.set_defaults(job_parser=job)
    job.add_argument("--config", required=True, help="config file, with :argument if it takes one")
    job.add_argument("--workdir", help="checkpoints, logs and plan are written here")
    job.add_argument(
        "--explain-sharding",
        type=int,
        nargs="?",
        const=0,
        metavar="DEVICES",
        help="print where each parameter would lie on so many devices (those that the mesh asks "
        "for, or this machine's), and start nothing; neither data nor workdir is needed",
    )
    job.add_argument(
        "--profile-steps",
        type=_steps,
        metavar="FIRST:LAST",
        help="write a profiler trace of these steps into the workdir",
    )
    job.add_argument(
        "--eval-benchmark",
        nargs="+",
        default=[],
        metavar="NAME",
        help="benchmarks to run every train.eval_every steps and at the end",
    )
    job.add_argument("--eval-data", help="the benchmark's folder, or the one that holds it by name")
    job.add_argument("--eval-images", help="the benchmarks' pictures")
    job.add_argument(
        "--eval-limit", type=int, default=200, help="questions of each benchmark (0: all)"
    )
    job.add_argument("--eval-max-new-tokens", type=int, default=64)
    job.add_argument(
        "--replay",
        action="store_true",
        help="train nothing: go to the step whose loss or gradient was not finite, row by row",
    )
    add_hosts(job)
    job.usage = "svit train --config FILE --workdir DIR [--section.key=value ...] [options]"


def _steps(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= first <= last:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not FIRST:LAST, the numbers of the first and the last step, as 10:15"
        )
    return first, last


def _run(options: argparse.Namespace) -> None:
    if options.explain_sharding is not None:
        return _explain(options)
    if options.workdir is None:
        options.job_parser.error("the following arguments are required: --workdir")
    from svit_jax import distributed

    with distributed.job(launch(options), ending):
        _train(options)


def _explain(options: argparse.Namespace) -> None:
    from svit_jax.config import load_config, run_config
    from svit_jax.training.sharding_report import report_sharding

    config = run_config(load_config(options.config, options.overrides), with_data=False)
    report = report_sharding(config, options.explain_sharding)
    show(options, report, report.table())
    report.require_fit()


def _train(options: argparse.Namespace) -> None:
    from svit_jax import distributed
    from svit_jax.config import load_config, run_config
    from svit_jax.training.goodput import goodput_table
    from svit_jax.training.loop import train

    config = run_config(load_config(options.config, options.overrides))
    if options.replay:
        from svit_jax.training.replay import replay

        found = replay(config, options.workdir)
        return show(options, found, str(found))
    hooks: tuple[Any, ...] = ()
    if options.eval_benchmark:
        hook = benchmark_hook(
            config,
            options.workdir,
            options.eval_benchmark,
            options.eval_data,
            options.eval_images,
            options.eval_limit,
            options.eval_max_new_tokens,
        )
        hooks = ((config.train.eval_every, hook),)
    result = train(config, options.workdir, hooks, options.profile_steps)
    if not distributed.is_first():
        return
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    show(
        options,
        result,
        f"step {result.step} of {result.steps} in {options.workdir}: {metrics}\n"
        + goodput_table(result.goodput),
    )


def benchmark_hook(
    config: Any,
    workdir: str,
    names: Sequence[str],
    data: str | None,
    images: str | None,
    limit: int,
    max_new_tokens: int,
) -> Callable[[int, Any], dict[str, float]]:
    """A hook for the training loop: greedy answers of the model as it is to up to `limit` questions
    of each benchmark (0: all), scored by the benchmark's rules, as `NAME/FIGURE`. Answers and
    scores go to `evaluations/STEP` in the workdir. Of several processes, all answer with the model
    as it lies across them, and the first alone reads the benchmarks.

    Raises UserError for unknown benchmarks, missing files and figures that have no public truth.
    """
    from etils import epath

    from data_pipeline.common.errors import UserError
    from data_pipeline.common.files import copy_folder
    from svit_jax import distributed
    from svit_jax.api import assistant
    from svit_jax.evaluation.hosts import across_all_hosts
    from svit_jax.evaluation.run import AnswerAll, evaluate, read_questions, scores
    from svit_jax.sharding.mesh import make_mesh

    if data is None or images is None:
        raise UserError("--eval-benchmark wants --eval-data and --eval-images as well.")

    def require_scores() -> None:
        for name in names:
            if any(q.truth is None for q in read_questions(name, data, images, limit)):
                raise UserError(
                    f"--eval-benchmark {name}: the answers in {data} are not public, so it gives "
                    "no scores; choose a split with answers, or run svit eval at the end."
                )

    distributed.by_first("benchmarks", require_scores)
    mesh = make_mesh(config.mesh)
    batch_size = -(-_ENGINE_ROWS // mesh.size) * mesh.size
    compute = dataclasses.replace(config.compute, remat_vision="none", remat_decoder="none")

    @functools.cache
    def running() -> Any:
        """One for the whole run, so that it compiles once; it holds no parameters between."""
        return assistant(workdir, {}, compute, mesh, config.rules, batch_size, workdir)

    def hook(step: int, state: Any) -> dict[str, float]:
        def run(answer_all: AnswerAll) -> dict[str, float]:
            identity = f"step {step} of {workdir}, greedy {max_new_tokens}"
            # Aside: a bucket can't append to journals, and an interrupted run leaves nothing.
            with tempfile.TemporaryDirectory() as aside:
                runs = evaluate(answer_all, identity, names, data, images, aside, limit=limit)
                copy_folder(epath.Path(aside), epath.Path(workdir) / "evaluations" / str(step))
            found = scores(runs)
            return {f"{name}/{key}": value for name in names for key, value in found[name].items()}

        running().engine.parameters = state.parameters()
        try:
            return across_all_hosts(running().answerer(max_new_tokens), _GROUP, run)
        finally:
            running().engine.parameters = {}

    return hook
