"""`svit data shard` and `svit data tokenizer`: what training reads."""

import argparse
from typing import Any

from svit_jax.cli.job import add_job, show


def shard_job(steps: Any) -> None:
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


def tokenizer_job(steps: Any) -> None:
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
