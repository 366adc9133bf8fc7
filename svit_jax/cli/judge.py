"""`svit judge`: answers to open questions, graded by a language model behind an endpoint."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.endpoint import add_conduct, add_endpoint, budget, conduct, openai_model, prices
from svit_jax.cli.job import add_job, show


def judge_job(jobs: Any) -> None:
    job = add_job(
        jobs,
        "judge",
        _run,
        "grade answers to MM-Vet or LLaVA-Bench by a judge behind an OpenAI-compatible endpoint; "
        "resumable",
        "svit judge --benchmark mmvet --data benchmarks/mmvet --out results --model gpt-4-0613 "
        "--runs 5 --concurrency 8 --price-input 30 --price-output 60 --max-cost 20",
    )
    job.add_argument("--benchmark", required=True, choices=("mmvet", "llava_bench"))
    job.add_argument(
        "--data", required=True, help="the benchmark's folder, with what its judge is told"
    )
    job.add_argument(
        "--out", required=True, help="the --out of the svit eval; verdict and reviews go there too"
    )
    job.add_argument(
        "--predictions", help="a file of answers in place of those that svit eval left in --out"
    )
    job.add_argument(
        "--answered",
        action="store_true",
        help="grade the questions that have an answer (after svit eval --limit)",
    )
    job.add_argument("--runs", type=int, default=1, help="grade so often, and take means (1)")
    job.add_argument(
        "--dry-run", action="store_true", help="count calls, tokens and the price; call nobody"
    )
    endpoint = job.add_argument_group("the judge")
    endpoint.add_argument("--model", required=True, help="its name at the endpoint")
    add_endpoint(endpoint)
    add_conduct(job.add_argument_group("pace and budget"))


def _run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from svit_jax.evaluation.answers import read_answers
    from svit_jax.evaluation.judged import Grading, Judged, forecast_grading, grade_answers
    from svit_jax.evaluation.registry import find_benchmark
    from svit_jax.evaluation.run import benchmark_folder

    if options.runs < 1:
        raise UserError(f"--runs is {options.runs}; grade at least once.")
    benchmark = find_benchmark(options.benchmark)
    assert isinstance(benchmark, Judged)
    folder = benchmark_folder(options.benchmark, options.data)
    questions = benchmark.read(folder, None)
    file = options.predictions or Path(options.out) / f"{options.benchmark}.answers.jsonl"
    answers = read_answers(file, questions)
    if options.answered:
        questions = [question for question in questions if question.question_id in answers]
    grading = Grading(
        benchmark,
        questions,
        answers,
        folder,
        options.model,
        lambda temperature, tokens: openai_model(options, temperature, tokens),
        options.runs,
    )
    if options.dry_run:
        ahead, price = forecast_grading(grading, options.out), prices(options)
        words = f"{ahead.calls} calls ({ahead.graded} are graded): about {ahead.input_tokens} "
        words += f"input tokens, at most {ahead.output_tokens_at_most} output tokens"
        if price is not None:
            words += f", a cost of at most {ahead.cost(price):.2f}"
        show(options, ahead, words)
        return
    verdict = grade_answers(grading, options.out, budget(options), conduct(options))
    figures = ", ".join(f"{name} {value:.1f}" for name, value in verdict.figures.items())
    note = "" if options.model == benchmark.judge else f" Published: by {benchmark.judge}."
    show(options, verdict, f"{options.benchmark}: {figures}\n{verdict.note}{note}")
