"""`svit data convert`: instructions in LLaVA-1.5's format."""

import argparse
from collections.abc import Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.data.kinds import KINDS
from svit_jax.cli.job import add_job, show


def convert_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.instructions.captions import caption_rows
        from data_pipeline.instructions.llava import convert
        from data_pipeline.instructions.vqa import convert_vqa

        if options.raw:
            if not options.scenes:
                raise UserError("--raw needs --scenes, for the pictures' sizes and paths.")
            report = convert(
                options.raw,
                options.scenes,
                options.out,
                kinds=options.kinds,
                seed=options.seed,
                prefix=options.prefix,
                limits=_limits(options.limit),
                merge=options.merge,
                max_bad=options.max_bad,
            )
            show(options, report, f"{report.rows} rows in {options.out}")
        elif options.vqa:
            questions, annotations = options.vqa
            count = convert_vqa(
                questions,
                annotations,
                options.out,
                options.prefix,
                options.pairs,
                not options.suffix_once,
            )
            show(options, {"rows": count}, f"{count} rows in {options.out}")
        elif options.captions:
            count = caption_rows(
                options.captions,
                options.out,
                options.captions_per_picture,
                options.seed,
                options.prefix,
            )
            show(options, {"rows": count}, f"{count} rows in {options.out}")

    job = add_job(
        steps,
        "convert",
        run,
        "SVIT's raw format, VQA files or captions -> LLaVA-1.5's JSON",
        "svit data convert --raw raw --scenes scenes.jsonl --out instructions.json",
    )
    source = job.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw", help="folder of SVIT raw files (needs --scenes)")
    source.add_argument("--vqa", nargs=2, metavar=("QUESTIONS", "ANNOTATIONS"), help="VQAv2 files")
    source.add_argument("--captions", metavar="SCENES", help="scenes file: rows for stage 1")
    job.add_argument("--scenes", help="the scenes file of the raw files")
    job.add_argument("--out", required=True, help="the LLaVA-format JSON to write")
    job.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    job.add_argument("--prefix", default="", help="put before picture paths, such as 'vg/'")
    job.add_argument(
        "--limit",
        nargs="*",
        default=(),
        metavar="KIND=N",
        help="at most N dialogues of a kind a picture",
    )
    job.add_argument(
        "--merge",
        nargs="*",
        default=(),
        choices=KINDS,
        help="join a picture's single questions of these kinds into one conversation",
    )
    job.add_argument("--pairs", type=int, default=10, help="VQA pairs in one conversation")
    job.add_argument(
        "--suffix-once", action="store_true", help="VQA: ask for a short answer once a conversation"
    )
    job.add_argument("--captions-per-picture", type=int, default=1)
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-bad", type=int, help="stop after this many rejected records")


def _limits(texts: Sequence[str]) -> dict[str, int]:
    limits = {}
    for text in texts:
        kind, _, number = text.partition("=")
        if kind not in KINDS or not number.isdigit():
            raise UserError(f"--limit {text} is not KIND=N; kinds are {', '.join(KINDS)}.")
        limits[kind] = int(number)
    return limits
