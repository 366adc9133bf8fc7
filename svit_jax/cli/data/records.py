"""`svit data shard` and `svit data tokenizer`: what training reads."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.job import add_job, show


def shard_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        report = _write(options)
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
    job.add_argument(
        "--workers", type=int, help="shards written at once (default: one for each core)"
    )
    job.add_argument(
        "--resize", type=int, help="store squares of this many pixels (default: files as they are)"
    )
    job.add_argument(
        "--image-mode",
        choices=("pad", "crop"),
        help="how --resize makes a square: as data.image_mode of the run (default: pad)",
    )
    job.add_argument(
        "--image-format",
        choices=("png", "jpeg"),
        help="what --resize writes: png is exact, jpeg small (default: png)",
    )
    job.add_argument("--runner", help="write on this Beam runner instead (needs svit-jax[beam])")
    job.add_argument("beam_options", nargs="*", help="Beam's own options, after --")


def _write(options: argparse.Namespace) -> Any:
    from data_pipeline.records.pictures import Resize
    from data_pipeline.records.target import Target
    from data_pipeline.records.writer import write_dataset

    resize = None
    if options.resize is not None:
        resize = Resize(options.resize, options.image_mode or "pad", options.image_format or "png")
    elif options.image_mode or options.image_format:
        raise UserError("--image-mode and --image-format belong to --resize; give its size too.")
    if options.runner is None:
        if options.beam_options:
            raise UserError(f"{options.beam_options} are Beam's options; give a --runner too.")
        return write_dataset(
            options.llava,
            options.images,
            options.out,
            options.name,
            options.split,
            options.shards,
            options.max_bad,
            resize,
            options.workers,
        )
    try:
        from data_pipeline.records.beam_pipeline import write_dataset_with_beam
    except ModuleNotFoundError as error:
        raise UserError(
            f"--runner needs Beam ({error}); install it: pip install 'svit-jax[beam]'."
        ) from None
    target = Target(
        options.out, options.name, options.split, options.shards, options.max_bad, resize
    )
    return write_dataset_with_beam(
        options.llava, options.images, target, options.runner, options.beam_options
    )


def tokenizer_job(steps: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.records.source import open_records
        from data_pipeline.text.corpus import spread, training_texts
        from data_pipeline.text.tokenizer import train_tokenizer

        if options.dialogues < 1:
            raise UserError(f"--dialogues is {options.dialogues}; expected 1 or more.")
        sources = [open_records(folder) for folder in options.data]
        total = sum(source.header.dialogues for source in sources)
        every = (d for source in sources for entry in source.entries for d in entry.dialogues)
        dialogues = spread(every, total, options.dialogues)
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
        "--dialogues", type=int, default=200_000, help="learn from at most this many, evenly spread"
    )
    job.add_argument(
        "--whole-numbers", action="store_true", help="let numbers such as 0.125 be one piece"
    )
