"""`svit data generate`: scenes -> instructions, by a teacher."""

import argparse
from typing import Any

from svit_jax.cli.data.kinds import KINDS
from svit_jax.cli.job import add_job, show


def generate_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.generation.generate import generate
        from data_pipeline.generation.template_teacher import TemplateTeacher

        report = generate(
            options.scenes,
            options.out,
            TemplateTeacher(options.unasked),
            kinds=options.kinds,
            seed=options.seed,
            max_bad=options.max_bad,
            template_folder=options.prompts,
        )
        show(options, report, f"instructions about {report.scenes} scenes in {options.out}")

    job = add_job(
        steps,
        "generate",
        run,
        "scenes -> prompts -> teacher -> checked instructions in SVIT's raw format; resumable",
        "svit data generate --scenes scenes.jsonl --out raw",
    )
    job.add_argument("--scenes", required=True, help="the scenes file")
    job.add_argument("--out", required=True, help="folder for the raw files and the journal")
    job.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    job.add_argument(
        "--teacher",
        default="template",
        choices=("template",),
        help="who answers: 'template' answers offline, from the annotations",
    )
    job.add_argument("--prompts", help="a folder of prompt templates in place of ours")
    job.add_argument(
        "--unasked", nargs="*", default=(), help="names that the template teacher never mentions"
    )
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-bad", type=int, help="stop after this many rejected items")
