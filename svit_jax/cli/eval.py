"""`svit eval` and `svit score`: benchmarks answered by a checkpoint, answers on file scored."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from svit_jax.cli.job import MESH_HELP, add_hosts, add_int8, add_job, ending, launch, show

_BENCHMARKS = (
    "vqav2, gqa, mme, pope, referring, scienceqa, seedbench, mmbench, mmbench_cn, textvqa, vizwiz, "
    "mmmu, mmvet, llava_bench"
)
_LONG_ANSWERS = ("mmvet", "llava_bench")
_ROOM = 1024
"""How many tokens LLaVA-1.5's answers to those may have."""


def eval_jobs(jobs: Any) -> None:
    _eval(jobs)
    _score(jobs)
    _compare(jobs)


def _eval(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax import distributed

        with distributed.job(launch(options), ending):
            answer(options)

    def answer(options: argparse.Namespace) -> None:
        from svit_jax.api import load
        from svit_jax.evaluation.compare import compare_with
        from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
        from svit_jax.evaluation.hosts import on_all_hosts
        from svit_jax.evaluation.judged import read_verdict
        from svit_jax.evaluation.run import evaluate, scores
        from svit_jax.sharding.mesh import parse_mesh

        assistant = load(
            options.checkpoint,
            mesh=parse_mesh(options.mesh),
            batch_size=options.batch_size,
            int8=options.int8,
        )
        runs = on_all_hosts(
            assistant.answerer(options.max_new_tokens),
            8 * options.batch_size,
            lambda answer_all: evaluate(
                answer_all,
                assistant.identity(options.max_new_tokens),
                options.benchmark,
                options.data,
                options.images,
                options.out,
                options.blank,
                options.limit,
            ),
        )
        if runs is None:
            return
        judged = {
            name: verdict
            for name, run in runs.items()
            if (verdict := read_verdict(options.out, name, run.answers, run.questions))
        }
        found = scores(runs) | {name: dict(verdict.figures) for name, verdict in judged.items()}
        report = EvalReport(
            assistant.checkpoint,
            options.data,
            runs,
            strict=scores(runs, strict=True) if options.strict else {},
            compared=compare_with(options.against, runs, judged) if options.against else (),
            notes=_notes(options),
            judged=judged,
        )
        write_eval_report(options.out, report, "blank.report" if options.blank else "report")
        lines = [
            f"{name}: " + (_in_words(figures) or _elsewhere(runs[name].benchmark, options.out))
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
    job.add_argument(
        "--limit", type=int, default=0, help="so many questions, spread over the pictures (0: all)"
    )
    job.add_argument(
        "--strict", action="store_true", help="report figures without the official quirks as well"
    )
    job.add_argument(
        "--against", metavar="OUT", help="another run's --out: the report compares the two"
    )
    job.add_argument("--batch-size", type=int, default=16)
    job.add_argument("--max-new-tokens", type=int, default=128)
    job.add_argument("--mesh", default="", help=MESH_HELP)
    add_int8(job)
    add_hosts(job)


def _score(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.evaluation.scoring import score_file

        found = score_file(
            options.benchmark, options.data, options.predictions, strict=options.strict
        )
        lines = [f"{options.benchmark}: {_in_words(found.official)}"] if found.official else []
        if found.strict is not None:
            lines += [f"{options.benchmark}, strict: {_in_words(found.strict)}"]
            lines += [f"quirk of the official scoring: {quirk}" for quirk in found.quirks]
        for note in found.notes:
            print(note, file=sys.stderr)
        result = dataclasses.asdict(found) if options.strict else found.official
        show(options, result, "\n".join(lines))

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
    job.add_argument(
        "--strict",
        action="store_true",
        help="also score without the official code's quirks, and name them",
    )


def _compare(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.evaluation.compare import COMPARISON_COLUMNS, compare, comparison_cells
        from svit_jax.evaluation.markdown import markdown_table

        found = compare(options.first, options.second, options.data, options.benchmark)
        rows = [comparison_cells(comparison) for comparison in found]
        show(
            options,
            [dataclasses.asdict(comparison) for comparison in found],
            markdown_table(COMPARISON_COLUMNS, rows).rstrip(),
        )

    job = add_job(
        jobs,
        "compare",
        run,
        "compare the answers of two checkpoints to the same questions: differences, their "
        "intervals, McNemar's test",
        "svit compare results_a results_b --data benchmarks",
    )
    job.add_argument("first", help="the --out folder of an svit eval")
    job.add_argument("second", help="that of another checkpoint")
    job.add_argument(
        "--data", required=True, help="the benchmark's folder, or the folder that holds it by name"
    )
    job.add_argument(
        "--benchmark", nargs="+", default=[], help="those to compare (all that both hold)"
    )


def _notes(options: argparse.Namespace) -> list[str]:
    """What sets this run apart from an official one."""
    notes = []
    if options.limit:
        notes.append(f"At most {options.limit} questions of each benchmark were asked (--limit).")
    long = [name for name in options.benchmark if name in _LONG_ANSWERS]
    if long and options.max_new_tokens < _ROOM:
        notes.append(
            f"Answers to {' and '.join(long)} had room for {options.max_new_tokens} tokens, "
            f"LLaVA-1.5's for {_ROOM:,} (--max-new-tokens)."
        )
    if options.blank:
        notes.append("Every picture was replaced by a blank one (--blank).")
    return notes


def _elsewhere(benchmark: Any, out: str) -> str:
    """Where figures come from that can't be made here."""
    from svit_jax.evaluation.judged import Judged

    if isinstance(benchmark, Judged):
        return f"to be graded: svit judge --benchmark {benchmark.name} --out {out} (see its --help)"
    return f"no public truth; upload what is in {out}"


def _in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
