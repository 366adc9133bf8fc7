"""`svit convert`: bring a checkpoint in, take one out."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.cli.job import add_job, show


def convert_job(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
        from data_pipeline.text.templates import get_template
        from svit_jax.checkpoints.convert import convert
        from svit_jax.checkpoints.hugging_face_import import ImportOptions

        get_template(options.template)
        if options.tokenizer:
            from data_pipeline.text.tokenizer import Tokenizer

            Tokenizer(options.tokenizer)
        report = convert(
            options.source,
            options.target,
            options.to,
            ImportOptions(
                statistics=(IMAGE_MEAN, IMAGE_STD),
                vocabulary=_vocabulary(options.vocabulary),
                template=options.template,
                image_mode=options.image_mode,
                tokenizer=options.tokenizer,
                vision_tower=options.vision_tower,
                projector=options.projector,
                base=options.base,
            ),
            given=options.given,
            dtype=options.dtype,
            with_tower=options.with_tower,
            keep_lora=options.keep_lora,
        )
        lines = [
            f"{report.source}: {report.format} ({report.reason})",
            f"{report.target}: {report.to}, {report.parameters:,} parameters in "
            f"{', '.join(report.dtypes)}; {len(report.kept)} unused tensors kept beside them",
            *(f"note: {note}" for note in report.notes),
        ]
        show(options, report, "\n".join(lines))

    job = add_job(
        jobs,
        "convert",
        run,
        "a checkpoint from one format to another: LLaVA, llava-hf, Vicuna with CLIP, LoRA, ours",
        "svit convert --from llava llava-v1.5-7b --vision-tower clip-vit-large-patch14-336 "
        "--to orbax llava_7b",
    )
    formats = ("llava", "llava-hf", "vicuna", "lora", "orbax")
    job.add_argument("source", metavar="SRC", help="the checkpoint's folder")
    job.add_argument("target", metavar="DST", help="the folder to write; it must not be there yet")
    job.add_argument(
        "--from",
        dest="given",
        default="auto",
        choices=("auto", *formats),
        help="what SRC is (default: told by its config.json and keys)",
    )
    job.add_argument(
        "--to",
        required=True,
        choices=("llava", "llava-hf", "lora", "orbax"),
        help="what DST becomes; 'lora' is a PEFT adapter",
    )
    job.add_argument(
        "--vision-tower",
        metavar="DIR",
        help="a CLIP's folder, or any checkpoint with a tower: where SRC has none, or lacks the "
        "blocks that LLaVA never runs",
    )
    job.add_argument("--base", metavar="DIR", help="the model that a LoRA was trained on")
    job.add_argument(
        "--keep-lora",
        action="store_true",
        help="--to orbax: keep LoRA apart, to train on (default: merge it)",
    )
    job.add_argument("--projector", metavar="FILE", help="mm_projector.bin, for a Vicuna")
    job.add_argument(
        "--vocabulary",
        default="32000",
        metavar="N",
        help="drop the rows past the first N tokens, or 'all' to keep them (default: 32000)",
    )
    job.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.model, where SRC has none")
    job.add_argument("--template", default="v1", help="how conversations are written (default: v1)")
    job.add_argument(
        "--image-mode",
        choices=("pad", "crop"),
        help="how pictures become square (default: as config.json says, else pad)",
    )
    job.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="cast all weights (default: each stays as it is)",
    )
    job.add_argument(
        "--with-tower", action="store_true", help="--to llava: write the vision tower too"
    )


def _vocabulary(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) == 0:
        raise UserError(f"--vocabulary {text} is neither a number of tokens nor 'all'.")
    return int(text)
