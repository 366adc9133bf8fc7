"""`svit data select`: the core subset of a large set of instructions."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.job import add_job, show


def select_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.recipe.concepts import read_concepts
        from data_pipeline.recipe.select import Choices, select
        from data_pipeline.recipe.select_balance import parse_yes_share
        from data_pipeline.recipe.select_items import parse_source
        from data_pipeline.recipe.select_quotas import parse_quotas

        concepts = read_concepts(options.concepts)
        if options.draft_concepts:
            _draft(options, concepts)
            return
        if not options.llava or not options.out:
            raise UserError("svit data select needs --llava, the files, and --out, the result.")
        report = select(
            [parse_source(text) for text in options.llava],
            options.out,
            concepts,
            Choices(
                count=options.count,
                quotas=parse_quotas(options.quota),
                yes_share=parse_yes_share(options.yes_share),
                cap=options.cap,
                min_frequency=options.min_frequency,
                unit=options.unit,
                seed=options.seed,
            ),
            max_bad=options.max_bad,
        )
        show(
            options,
            report,
            f"{report.items:,} of {report.from_items:,} items in {options.out}: {report.kinds}, "
            f"{report.yes:,} yes and {report.no:,} no; repeated: {report.repeated:,}; "
            f"rejected: {report.rejections}; plots: {report.report}",
        )

    job = add_job(
        steps,
        "select",
        run,
        "a large set of instructions -> its core subset: diverse, balanced in yes and no",
        "svit data select --llava svit.json --out core.json",
    )
    job.add_argument(
        "--llava", nargs="+", metavar="FILE", help="LLaVA-format JSON files, or KIND=FILE"
    )
    job.add_argument("--out", help="the JSON file to write; manifest and report stand beside it")
    job.add_argument("--count", type=int, default=157_712, help="how many items (default: 157712)")
    job.add_argument(
        "--quota",
        nargs="*",
        default=(),
        metavar="KIND=N",
        help="so many items of a kind, or KIND=P%% of --count; other kinds divide the rest",
    )
    job.add_argument(
        "--yes-share",
        default="0.5",
        metavar="SHARE",
        help="of answers that start with yes or no, the share of yes, or 'keep' (default: 0.5)",
    )
    job.add_argument(
        "--cap", type=int, help="a keyword counts in so many items (default: 1%% of --count)"
    )
    job.add_argument(
        "--min-frequency",
        type=float,
        default=1e-4,
        metavar="SHARE",
        help="drop keywords that a smaller share of the items holds (default: 0.0001)",
    )
    job.add_argument(
        "--unit",
        choices=("row", "qa"),
        default="row",
        help="select dialogues, or single questions with their answers (default: row)",
    )
    job.add_argument("--concepts", metavar="FILE", help="a concept set in YAML in place of ours")
    job.add_argument(
        "--draft-concepts",
        metavar="FILE",
        help="let --model write keywords for the concepts into FILE, and stop there",
    )
    job.add_argument("--model", help="--draft-concepts: the model's name at the endpoint")
    job.add_argument(
        "--base-url", help="--draft-concepts: the endpoint (default: OPENAI_BASE_URL, else OpenAI)"
    )
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-bad", type=int, help="stop after this many rejected rows")


def _draft(options: argparse.Namespace, base: Any) -> None:
    from data_pipeline.recipe.concepts import draft_concepts
    from data_pipeline.recipe.concepts_teacher import openai_ask

    if not options.model:
        raise UserError("--draft-concepts needs --model, the model that writes the keywords.")
    ask = openai_ask(options.model, options.base_url)
    drafted = draft_concepts(ask, base, options.draft_concepts)
    show(
        options,
        {"concepts": len(drafted.concepts), "keywords": len(drafted.keywords)},
        f"{len(drafted.keywords)} keywords of {len(drafted.concepts)} concepts in "
        f"{options.draft_concepts}; read them, then select with --concepts.",
    )
