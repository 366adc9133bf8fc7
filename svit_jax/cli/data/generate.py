"""`svit data generate`: scenes -> instructions, by a teacher."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.data.kinds import KINDS
from svit_jax.cli.endpoint import add_conduct, add_endpoint, budget, conduct, openai_model, prices
from svit_jax.cli.job import add_job, show


def generate_job(steps: Any) -> None:
    job = add_job(
        steps,
        "generate",
        _run,
        "scenes -> prompts -> teacher -> checked instructions in SVIT's raw format; resumable",
        "svit data generate --scenes scenes.jsonl --out raw --teacher openai --model MODEL "
        "--concurrency 64 --price-input 2.5 --price-output 10 --max-cost 100",
    )
    job.add_argument("--scenes", required=True, help="the scenes file")
    job.add_argument("--out", required=True, help="folder for the raw files and the journal")
    job.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    job.add_argument(
        "--teacher",
        default="template",
        choices=("template", "openai"),
        help="'template' answers offline, from the annotations; 'openai' is any endpoint that "
        "speaks the OpenAI API",
    )
    job.add_argument("--prompts", help="a folder of prompt templates in place of ours")
    job.add_argument(
        "--prompt-tokens",
        type=int,
        default=16384,
        help="room for a prompt (estimated); of longer scenes, small things are left out",
    )
    job.add_argument(
        "--unasked", nargs="*", default=(), help="names that the template teacher never mentions"
    )
    job.add_argument("--seed", type=int, help="default 0; an endpoint is sent one only if given")
    job.add_argument("--max-bad", type=int, help="stop after this many rejected items")
    job.add_argument(
        "--retry-rejected",
        action="store_true",
        help="ask again for everything of which a part stands in the quarantine",
    )
    endpoint = job.add_argument_group("endpoint (--teacher openai)")
    endpoint.add_argument("--model", help="the model's name at the endpoint")
    endpoint.add_argument("--temperature", type=float, help="default: the endpoint's own")
    endpoint.add_argument("--max-answer-tokens", type=int, default=2048)
    add_endpoint(endpoint)
    add_conduct(job.add_argument_group("pace and budget"))
    _instead(
        job.add_argument_group("in place of asking and writing").add_mutually_exclusive_group()
    )


def _instead(group: Any) -> None:
    group.add_argument(
        "--dry-run", action="store_true", help="count calls, tokens and the price; call nobody"
    )
    group.add_argument(
        "--write-batch", metavar="FOLDER", help="write request files for the OpenAI Batch API"
    )
    group.add_argument(
        "--read-batch", nargs="+", metavar="FILE", help="read the results of such files"
    )
    group.add_argument(
        "--assemble", action="store_true", help="write the files from what is answered; ask nobody"
    )


def _run(options: argparse.Namespace) -> None:
    from data_pipeline.generation.run import Inputs

    inputs = Inputs(
        options.scenes,
        options.out,
        options.kinds,
        options.seed or 0,
        options.prompts,
        options.retry_rejected,
        options.prompt_tokens,
    )
    if options.dry_run:
        _forecast(options, inputs)
    elif options.write_batch:
        _write_batch(options, inputs)
    elif options.read_batch:
        _read_batch(options, inputs)
    else:
        _generate(options)


def _generate(options: argparse.Namespace) -> None:
    from data_pipeline.generation.generate import generate

    report = generate(
        options.scenes,
        options.out,
        _openai(options) if options.teacher == "openai" else _template(options),
        kinds=options.kinds,
        seed=options.seed or 0,
        max_bad=options.max_bad,
        template_folder=options.prompts,
        conduct=conduct(options),
        budget=budget(options),
        retry_rejected=options.retry_rejected,
        ask=not options.assemble,
        prompt_tokens=options.prompt_tokens,
    )
    unanswered = sum(kind.unanswered for kind in report.kinds.values())
    show(
        options,
        report,
        f"instructions about {report.scenes} scenes in {options.out}; "
        f"rejected: {sum(report.rejections.values())}, unanswered: {unanswered}; "
        f"lines that prompts had no room for: {report.cut_lines}",
    )


def _forecast(options: argparse.Namespace, inputs: Any) -> None:
    from data_pipeline.generation.forecast import forecast

    teacher = _openai(options) if options.teacher == "openai" else _template(options)
    found = forecast(inputs, teacher, prices(options))
    cost = "" if found.cost_at_most is None else f", a cost of at most {found.cost_at_most:.2f}"
    show(
        options,
        found,
        f"{found.calls} calls ({found.answered} are answered): about {found.input_tokens} input "
        f"tokens, at most {found.output_tokens_at_most} output tokens{cost}",
    )


def _write_batch(options: argparse.Namespace, inputs: Any) -> None:
    from data_pipeline.generation.batch_files import write_batch

    written = write_batch(inputs, _openai(options), options.write_batch)
    show(
        options,
        written,
        f"{written.requests} requests in {len(written.files)} files in {options.write_batch}; "
        "send them, then read the results with --read-batch",
    )


def _read_batch(options: argparse.Namespace, inputs: Any) -> None:
    from data_pipeline.generation.batch_files import read_batch

    read = read_batch(inputs, _openai(options), options.read_batch)
    show(
        options,
        read,
        f"{read.answered} answers read, {sum(read.failed.values())} failed, "
        f"{read.unanswered} requests are open; ask those, or write the files with --assemble",
    )


def _openai(options: argparse.Namespace) -> Any:
    if options.teacher != "openai" or not options.model:
        raise UserError("an endpoint is asked with --teacher openai and --model NAME.")
    return openai_model(
        options,
        options.temperature,
        options.max_answer_tokens,
        send_seed=options.seed is not None,
    )


def _template(options: argparse.Namespace) -> Any:
    from data_pipeline.generation.template_teacher import TemplateTeacher

    return TemplateTeacher(options.unasked)
