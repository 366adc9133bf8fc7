"""`svit data clean` and `svit data convert`: instructions, cleaned, in LLaVA-1.5's format."""

import argparse
from collections.abc import Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.data.kinds import KINDS
from svit_jax.cli.job import add_job, show


def clean_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.instructions.clean import Rules, clean_llava, clean_raw, read_ids
        from data_pipeline.instructions.pictures import read_pictures

        sizes = options.scenes or options.image_data
        rules = Rules(
            drop=options.drop,
            min_pairs=options.min_pairs,
            exclude=read_ids(options.exclude_ids) if options.exclude_ids else frozenset(),
            known=read_pictures(sizes).keys() if sizes else None,
        )
        if options.raw:
            report = clean_raw(options.raw, options.out, rules, options.max_bad)
        else:
            report = clean_llava(
                options.llava, options.out, rules, sizes, options.prefix, options.max_bad
            )
        show(
            options,
            report,
            f"kept {sum(report.kept.values())} dialogues in {options.out}; dropped: "
            f"{report.dropped}; excluded: {report.excluded['dialogues']}; remarks (dropped only "
            f"with --drop): {report.remarks}",
        )

    job = add_job(
        steps,
        "clean",
        run,
        "instructions without the known defects of the released data; what goes is listed",
        "svit data clean --raw svit --out cleaned --image-data image_data.json "
        "--exclude-ids test_image_ids.txt --drop short_dialogue duplicate",
    )
    source = job.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw", help="folder of SVIT raw files, or one file of all four kinds")
    source.add_argument("--llava", help="a LLaVA-format JSON file instead")
    job.add_argument("--out", required=True, help="folder to write; with --llava, a file")
    sizes = job.add_mutually_exclusive_group()
    sizes.add_argument("--scenes", help="which pictures there are: a scenes file")
    sizes.add_argument("--image-data", help="the same from Visual Genome's image_data.json")
    job.add_argument("--prefix", default="", help="with --llava: what stands before its paths")
    job.add_argument("--exclude-ids", metavar="TXT", help="image ids to leave out, one a line")
    job.add_argument(
        "--drop",
        nargs="+",
        default=(),
        metavar="REMARK",
        help="drop dialogues with these remarks too: short_dialogue, mentions_source, duplicate, "
        "plain_question, coordinates, no_box, long_answer",
    )
    job.add_argument("--min-pairs", type=int, default=5, help="fewer is a short_dialogue")
    job.add_argument("--max-bad", type=int, help="stop after this many dropped dialogues")


def convert_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.instructions.captions import caption_rows
        from data_pipeline.instructions.llava import convert
        from data_pipeline.instructions.vqa import convert_vqa

        if options.raw:
            report = convert(
                options.raw,
                _sizes(options, "--raw"),
                options.out,
                kinds=options.kinds,
                seed=options.seed,
                prefix=options.prefix,
                limits=_limits(options.limit),
                merge=options.merge,
                max_bad=options.max_bad,
                detail_questions=options.detail_questions,
            )
            show(options, report, f"{report.rows} rows in {options.out}")
        elif options.reverse:
            from data_pipeline.instructions.reverse import to_raw

            sizes = _sizes(options, "--reverse")
            back = to_raw(options.reverse, sizes, options.out, options.prefix, options.max_bad)
            show(options, back, f"{back.dialogues} dialogues in {options.out}")
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
        "SVIT's raw format, VQA files or captions -> LLaVA-1.5's JSON, and back to raw",
        "svit data convert --raw svit --image-data image_data.json --prefix vg/ --out svit.json",
    )
    source = job.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw", help="folder of SVIT raw files, or one file of all four kinds")
    source.add_argument("--reverse", metavar="LLAVA", help="LLaVA-format JSON: back to raw files")
    source.add_argument("--vqa", nargs=2, metavar=("QUESTIONS", "ANNOTATIONS"), help="VQAv2 files")
    source.add_argument("--captions", metavar="SCENES", help="scenes file: rows for stage 1")
    sizes = job.add_mutually_exclusive_group()
    sizes.add_argument("--scenes", help="the pictures' sizes and paths: a scenes file")
    sizes.add_argument("--image-data", help="the same from Visual Genome's image_data.json")
    job.add_argument(
        "--out", required=True, help="the LLaVA-format JSON to write; with --reverse, a folder"
    )
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
    job.add_argument(
        "--detail-questions",
        metavar="TXT",
        help="one raw file of all kinds: the questions that ask for a description, one a line",
    )
    job.add_argument("--pairs", type=int, default=10, help="VQA pairs in one conversation")
    job.add_argument(
        "--suffix-once", action="store_true", help="VQA: ask for a short answer once a conversation"
    )
    job.add_argument("--captions-per-picture", type=int, default=1)
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-bad", type=int, help="stop after this many rejected records")


def _sizes(options: argparse.Namespace, asking: str) -> str:
    sizes = options.scenes or options.image_data
    if not sizes:
        raise UserError(
            f"{asking} needs the pictures' sizes and paths: give --scenes (a scenes file) or "
            "--image-data (Visual Genome's image_data.json)."
        )
    return sizes


def _limits(texts: Sequence[str]) -> dict[str, int]:
    limits = {}
    for text in texts:
        kind, _, number = text.partition("=")
        if kind not in KINDS or not number.isdigit():
            raise UserError(f"--limit {text} is not KIND=N; kinds are {', '.join(KINDS)}.")
        limits[kind] = int(number)
    return limits
