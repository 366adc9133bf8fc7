"""`svit data <step>`: from annotations to shards."""

import argparse
from collections.abc import Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.job import add_job, show

KINDS = ("conversation", "complex_reasoning", "detail_description", "referring_qa")


def data_jobs(jobs: Any) -> None:
    text = "from annotations to shards, a job a step"
    data = jobs.add_parser(
        "data",
        help=text,
        description=text,
        epilog="example:\n  svit data toy --out toy --scenes 4000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = data.add_subparsers(dest="step", required=True, metavar="step")
    _data_toy(steps)
    _data_annotate(steps)
    _data_generate(steps)
    _data_convert(steps)
    _data_shard(steps)
    _data_tokenizer(steps)


def _data_toy(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.toy_world.generate import generate_world

        report = generate_world(
            options.out,
            train_scenes=options.scenes,
            held_out_scenes=options.held_out,
            novel_scenes=options.novel,
            seed=options.seed,
        )
        show(options, report, f"{report.scenes} scenes in {report.root}")

    job = add_job(
        steps,
        "toy",
        run,
        "draw a toy world: pictures, Visual Genome and COCO files, benchmark files with truth",
        "svit data toy --out toy --scenes 4000",
    )
    job.add_argument("--out", required=True, help="the world's folder")
    job.add_argument("--scenes", type=int, default=4000, help="training scenes")
    job.add_argument("--held-out", type=int, default=300, help="held-out scenes")
    job.add_argument("--novel", type=int, default=100, help="scenes with unseen combinations")
    job.add_argument("--seed", type=int, default=0)


def _data_annotate(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.annotations.annotate import annotate

        report = annotate(options.vg, options.coco, options.out, max_bad=options.max_bad)
        if options.stand_ins:
            from data_pipeline.annotations.scene import read_scenes
            from data_pipeline.toy_world.stand_ins import draw_stand_ins

            draw_stand_ins(read_scenes(options.out), options.stand_ins)
        show(
            options,
            report,
            f"{report.scenes} scenes, {report.objects} objects, {report.regions} regions in "
            f"{options.out}; rejected: {sum(report.rejected.values())} ({report.quarantine})",
        )

    job = add_job(
        steps,
        "annotate",
        run,
        "Visual Genome and COCO captions files -> scenes.jsonl",
        "svit data annotate --vg visual_genome --coco captions_train2014.json --out scenes.jsonl",
    )
    job.add_argument("--vg", required=True, help="folder of the Visual Genome JSON files")
    job.add_argument("--coco", action="append", default=[], help="a COCO captions file; repeatable")
    job.add_argument("--out", required=True, help="the scenes file to write")
    job.add_argument("--max-bad", type=int, help="stop after this many rejected records")
    job.add_argument(
        "--stand-ins",
        metavar="IMAGES",
        help="draw a stand-in picture of the true size here for each scene that has none",
    )


def _data_generate(steps: Any) -> None:
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


def _data_convert(steps: Any) -> None:
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


def _data_shard(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.records.writer import write_dataset

        report = write_dataset(
            options.llava,
            options.images,
            options.out,
            options.name,
            split=options.split,
            shards=options.shards,
            max_bad=options.max_bad,
        )
        show(
            options,
            report,
            f"{report.records} records with {report.dialogues} dialogues in {options.out}; "
            f"rejected: {report.rejected} ({report.quarantine})",
        )

    job = add_job(
        steps,
        "shard",
        run,
        "LLaVA-format JSON and pictures -> ArrayRecord shards that are a TFDS dataset",
        "svit data shard --llava instructions.json --images images --out dataset --name svit",
    )
    job.add_argument("--llava", nargs="+", required=True, help="LLaVA-format JSON files")
    job.add_argument("--images", required=True, help="folder that picture paths are relative to")
    job.add_argument("--out", required=True, help="the dataset's folder")
    job.add_argument("--name", required=True, help="the dataset's name (TFDS)")
    job.add_argument("--split", default="train")
    job.add_argument("--shards", type=int, help="how many shards (default: one for 256 MiB)")
    job.add_argument("--max-bad", type=int, help="stop after this many rejected rows")


def _data_tokenizer(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.records.source import open_records
        from data_pipeline.text.corpus import training_texts
        from data_pipeline.text.tokenizer import train_tokenizer

        dialogues = (
            d for folder in options.data for e in open_records(folder).entries for d in e.dialogues
        )
        tokenizer = train_tokenizer(
            training_texts(dialogues), options.out, options.vocab, options.whole_numbers
        )
        show(
            options,
            {"pieces": tokenizer.vocab_size, "path": options.out},
            f"{tokenizer.vocab_size} pieces in {options.out}",
        )

    job = add_job(
        steps,
        "tokenizer",
        run,
        "train a SentencePiece model with Llama's conventions on a dataset's text",
        "svit data tokenizer --data dataset --vocab 512 --out tokenizer.model",
    )
    job.add_argument("--data", nargs="+", required=True, help="dataset folders")
    job.add_argument("--out", required=True, help="the .model file to write")
    job.add_argument("--vocab", type=int, default=32000, help="number of pieces")
    job.add_argument(
        "--whole-numbers", action="store_true", help="let numbers such as 0.125 be one piece"
    )
