"""`svit <job>`: thin; each job's code lives in its room, and only the chosen one is imported."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from data_pipeline.common.errors import UserError

KINDS = ("conversation", "complex_reasoning", "detail_description", "referring_qa")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one job. Returns 0 on success, 1 on an error that the user can mend, 2 on wrong usage
    (argparse), 130 when interrupted."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    given = all(text.startswith("--") and "." in text.partition("=")[0] for text in rest)
    if rest and (options.job != "train" or not given):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.overrides = [text.removeprefix("--") for text in rest]
    try:
        options.run(options)
    except UserError as error:
        print(f"svit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("svit: interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def show(options: argparse.Namespace, result: Any, line: str) -> None:
    """The job's result: one readable line, or with --json the whole of it."""
    if options.json:
        plain = isinstance(result, type) or not dataclasses.is_dataclass(result)
        value = result if plain else dataclasses.asdict(result)
        print(json.dumps(value, ensure_ascii=False, default=str))
    else:
        print(line)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="svit", description="SVIT: Scaling up Visual Instruction Tuning, in JAX."
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="job")
    _demo(jobs)
    _data(jobs)
    _train(jobs)
    _eval(jobs)
    _score(jobs)
    _chat(jobs)
    return parser


Run = Callable[[argparse.Namespace], None]


def _job(jobs: Any, name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser:
    job = jobs.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job.add_argument("--json", action="store_true", help="print the result as JSON")
    job.set_defaults(run=run)
    return job


def _demo(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.demo import run_demo

        run_demo(options.workdir, options.config)

    job = _job(
        jobs,
        "demo",
        run,
        "the whole path on the toy world: data, three training stages, evaluation, report",
        "svit demo --workdir demo_run",
    )
    job.add_argument("--workdir", default="demo_run", help="where everything is written")
    job.add_argument("--config", default="configs/toy.py", help="the toy stages' config file")


def _data(jobs: Any) -> None:
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

    job = _job(
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

    job = _job(
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

    job = _job(
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

    job = _job(
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

    job = _job(
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

    job = _job(
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


def _train(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.config import load_config, run_config
        from svit_jax.training.loop import train

        config = run_config(load_config(options.config, options.overrides))
        result = train(config, options.workdir)
        show(
            options,
            result,
            f"step {result.step} of {result.steps} in {options.workdir}: "
            + ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items()),
        )

    job = _job(
        jobs,
        "train",
        run,
        "train, or go on with, the run in a workdir",
        "svit train --config configs/toy.py:finetune --workdir run --data.train=dataset "
        "--data.tokenizer=tokenizer.model",
    )
    job.add_argument("--config", required=True, help="config file, with :argument if it takes one")
    job.add_argument("--workdir", required=True, help="checkpoints, logs and plan are written here")
    job.usage = "svit train --config FILE --workdir DIR [--section.key=value ...]"


def _eval(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.api import load
        from svit_jax.evaluation.run import evaluate, scores

        assistant = load(options.checkpoint, batch_size=options.batch_size)
        runs = evaluate(
            assistant.answerer(options.max_new_tokens),
            assistant.identity(options.max_new_tokens),
            options.benchmark,
            options.data,
            options.images,
            options.out,
            options.blank,
        )
        found = scores(runs)
        lines = [
            f"{name}: "
            + (
                ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
                or f"no public truth; upload what is in {options.out}"
            )
            for name, figures in found.items()
        ]
        show(options, found, "\n".join(lines))

    job = _job(
        jobs,
        "eval",
        run,
        "answer a benchmark's official files, write the submission, score where truth is public",
        "svit eval --checkpoint run --benchmark vqav2 --data benchmarks/vqav2 --images images "
        "--out results",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument(
        "--benchmark", nargs="+", required=True, help="vqav2, gqa, mme, pope, referring"
    )
    job.add_argument(
        "--data", required=True, help="the benchmark's folder, or the folder that holds it by name"
    )
    job.add_argument("--images", required=True, help="the pictures' folder")
    job.add_argument("--out", required=True, help="answers, submissions and scores go here")
    job.add_argument("--blank", action="store_true", help="show a blank in place of each picture")
    job.add_argument("--batch-size", type=int, default=16)
    job.add_argument("--max-new-tokens", type=int, default=128)


def _score(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.evaluation.answers import read_answers
        from svit_jax.evaluation.registry import find_benchmark

        benchmark = find_benchmark(options.benchmark)
        questions = benchmark.read(options.data, None)
        scores = benchmark.score(questions, read_answers(options.predictions, questions))
        figures = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        show(options, scores, f"{options.benchmark}: {figures}")

    job = _job(
        jobs,
        "score",
        run,
        "score an existing file of answers (our JSONL, or LLaVA's)",
        "svit score --benchmark pope --predictions answers.jsonl --data benchmarks/pope",
    )
    job.add_argument("--benchmark", required=True, help="vqav2, gqa, mme, pope, referring")
    job.add_argument("--predictions", required=True, help="the answers file")
    job.add_argument("--data", required=True, help="the benchmark's folder")


def _chat(jobs: Any) -> None:
    def run(options: argparse.Namespace) -> None:
        from svit_jax.chat import chat
        from svit_jax.inference.sampler import Sampling

        sampling = Sampling(options.temperature, options.top_p, options.seed)
        chat(options.checkpoint, options.image, options.max_new_tokens, sampling)

    job = _job(
        jobs,
        "chat",
        run,
        "talk about a picture in the terminal; answers stream, questions follow one another",
        "svit chat --checkpoint demo_run/finetune --image photo.jpg",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument("--image", help="the picture to talk about")
    job.add_argument("--temperature", type=float, default=0.0)
    job.add_argument("--top-p", type=float, default=1.0)
    job.add_argument("--seed", type=int, default=0)
    job.add_argument("--max-new-tokens", type=int, default=256)


if __name__ == "__main__":
    sys.exit(main())
