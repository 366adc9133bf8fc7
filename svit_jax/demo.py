"""`svit demo`: the rooms called in order on the toy world. It holds no logic of its own: every step
is a function that a user calls too, and every step can be interrupted and goes on."""

import functools
import itertools
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipeline.annotations.annotate import annotate
from data_pipeline.annotations.scene import read_scenes, write_scenes
from data_pipeline.common.dialogue import Dialogue
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, read_json, require_file, write_json
from data_pipeline.generation.generate import generate
from data_pipeline.generation.prompt import DETAIL_QUESTIONS, load_templates
from data_pipeline.generation.template_teacher import TemplateTeacher
from data_pipeline.instructions.captions import caption_rows
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS, convert
from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.corpus import training_texts
from data_pipeline.text.templates import V1
from data_pipeline.text.tokenizer import train_tokenizer
from data_pipeline.toy_world.generate import generate_world
from data_pipeline.toy_world.world import CELLS, HELD_OUT_PAIRS
from svit_jax.api import Assistant, load
from svit_jax.config import load_config, run_config
from svit_jax.evaluation.benchmark import SHORT_ANSWER
from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
from svit_jax.evaluation.gallery import choose_gallery, choose_referring
from svit_jax.evaluation.report import RunReport, StageReport, TrainingCurve, write_report
from svit_jax.evaluation.run import evaluate, scores, with_blind
from svit_jax.evaluation.summary import BenchmarkRun, summarise
from svit_jax.host_memory import keep_freed_memory
from svit_jax.models.presets import PRESETS
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics

BENCHMARKS = ("vqav2", "gqa", "mme", "pope")
# These are asked so that every benchmark's path is seen; a few questions do, and they stay out of
# the held-out accuracy.
MORE_BENCHMARKS = (
    *("scienceqa", "seedbench", "mmbench", "mmbench_cn"),
    *("textvqa", "vizwiz", "mmmu"),
)
MORE_QUESTIONS = 32
DATASETS = {
    "descriptions": ("details",),
    "captions": ("captions",),
    "instructions": ("svit", "vqa"),
}
TRAINING = {"scratch": "descriptions", "pretrain": "captions", "finetune": "instructions"}
LAST = "finetune"
# Descriptions are of every picture, the other kinds of a core of them: most of what is left to
# learn after the first stage is in short questions.
CORE_PICTURES = 600
CORE_KINDS = ("conversation", "complex_reasoning", "referring_qa")
# Of each kind, so many dialogues a picture: a few of those that the teacher gives are enough here.
LIMITS = {"conversation": 1, "complex_reasoning": 1, "referring_qa": 2}
PAIRS = 3
REFERRING_TOKENS, SHORT_TOKENS = 48, 12
TOKENIZER_PIECES = 768
STEMS = (
    *(f"What {trait} is the" for trait in ("color", "shape", "size")),
    *("Where is the", "How many", "Is the", "Is there an", "Is there a", "Are there"),
)
# What samples repeat is one token each, so that a row is mostly picture and content. Stems have no
# space in front: the first line of a question then reads as one that follows "USER:".
ANSWER = f" {V1.assistant}:"
ENDS = ("?", " in the image?", " are there?")
PHRASES = (
    f" {V1.system} {V1.human}:",
    *(f"{V1.human}:", " \n", ANSWER),
    *(f"{end}{prompt}{ANSWER}" for end in ENDS for prompt in ("", SHORT_ANSWER)),
    *BOX_INSTRUCTIONS,
    *(f" {cell}" for cell in CELLS if " " in cell),
    *STEMS,
    *load_templates()[DETAIL_QUESTIONS].splitlines(),
    *(" The image shows", " In the", " there is a", " in the", " and in the"),
    *(" of the image.", " in the image."),
    *(" to the left of the", " above the"),
)
WORLD = {"train_scenes": 6000, "held_out_scenes": 300, "novel_scenes": 100, "seed": 0}


class Stages:
    """Runs each stage of the demo once: a finished one is left alone, an interrupted one goes on.

    A marker a stage keeps its seconds and this process's peak memory. The folder belongs to one
    set of settings; others are an error.
    """

    def __init__(self, workdir: Path, settings: dict[str, Any]):
        self.folder = workdir / "stages"
        self.names: list[str] = []
        identity = content_hash(settings)
        marker = workdir / "demo.json"
        if marker.exists():
            if read_json(marker, "demo marker").get("identity") != identity:
                raise UserError(
                    f"{workdir} holds a demo run with other settings or of another version; "
                    "choose another --workdir, or delete it to start anew."
                )
        else:
            write_json(marker, {"identity": identity, "settings": settings})

    def run(self, name: str, work: Callable[[], Any]) -> None:
        self.names.append(name)
        marker = self.folder / f"{name}.json"
        if marker.exists():
            done = read_json(marker)
            print(f"[{name}] done before, in {done['seconds']:.0f} s", file=sys.stderr)
            return
        print(f"[{name}]", file=sys.stderr)
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        write_json(marker, {"seconds": seconds, "peak_memory_bytes": peak_memory()})

    def reports(self) -> list[StageReport]:
        rows = [(name, read_json(self.folder / f"{name}.json")) for name in self.names]
        return [StageReport(n, row["seconds"], row["peak_memory_bytes"]) for n, row in rows]


def peak_memory() -> int:
    """The most resident memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    packages = ("svit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}}


def run_demo(workdir: PathLike, config: str) -> None:
    """Runs the whole path in `workdir`, or goes on with it; writes report.html and results.json."""
    keep_freed_memory()
    root = Path(workdir)
    recipe = [
        WORLD,
        DATASETS,
        TRAINING,
        CORE_PICTURES,
        LIMITS,
        PAIRS,
        TOKENIZER_PIECES,
        PHRASES,
        PRESETS["toy"],
    ]
    stages = Stages(
        root, {"config": require_file(config, "demo config").read_text(), "recipe": recipe}
    )
    world, train_world = root / "world", root / "world" / "train"
    raw, rows, data = root / "raw", root / "rows", root / "data"
    tokenizer, scenes = root / "tokenizer.model", root / "scenes.jsonl"
    annotations, images = train_world / "visual_genome", train_world / "images"

    stages.run("toy world", lambda: generate_world(world, **WORLD))
    stages.run(
        "annotations",
        lambda: annotate(annotations, [train_world / "coco" / "captions_train2014.json"], scenes),
    )
    stages.run("instructions", lambda: _generate(scenes, raw))
    stages.run("LLaVA format", lambda: _convert(raw, scenes, train_world / "vqa", rows))
    stages.run("records", lambda: _write_records(rows, images, data))
    stages.run("tokenizer", lambda: _train_tokenizer(data, tokenizer))
    init = "scratch"
    for name in TRAINING:
        stages.run(name, functools.partial(_train, config, name, init, root))
        init = str(root / name)
    held_out = world / "held_out"
    stages.run("evaluation", lambda: _evaluate(root / LAST, held_out, root / "evaluation"))
    results = _report(root, stages, held_out)
    print(_table(results))
    print(f"report: {root / 'report.html'}")


def _generate(scenes: Path, out: Path) -> None:
    unasked = frozenset(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS)
    core = out / "core_scenes.jsonl"
    write_scenes(core, itertools.islice(read_scenes(scenes), CORE_PICTURES))
    generate(scenes, out / "all", TemplateTeacher(unasked), kinds=("detail_description",))
    generate(core, out / "core", TemplateTeacher(unasked), kinds=CORE_KINDS)


def _convert(raw: Path, scenes: Path, vqa: Path, out: Path) -> None:
    convert(
        raw / "core",
        scenes,
        out / "svit.json",
        kinds=CORE_KINDS,
        limits=LIMITS,
    )
    convert(raw / "all", scenes, out / "details.json", kinds=("detail_description",))
    questions = vqa / "questions.json", vqa / "annotations.json"
    convert_vqa(*questions, out / "vqa.json", pairs_per_dialogue=PAIRS)
    caption_rows(scenes, out / "captions.json")


def _write_records(rows: Path, images: Path, data: Path) -> None:
    for name, parts in DATASETS.items():
        files = [rows / f"{part}.json" for part in parts]
        write_dataset(files, images, data / name, f"toy_{name}")


def _train_tokenizer(data: Path, out: Path) -> None:
    def dialogues() -> Iterator[Dialogue]:
        for name in DATASETS:
            for entry in open_records(data / name).entries:
                yield from entry.dialogues

    train_tokenizer(
        training_texts(dialogues()), out, TOKENIZER_PIECES, whole_numbers=True, phrases=PHRASES
    )


def _train(config: str, stage: str, init: str, root: Path) -> None:
    overrides = [
        f"data.train={root / 'data' / TRAINING[stage]}",
        f"data.tokenizer={root / 'tokenizer.model'}",
        f"checkpoint.init={init}",
    ]
    train(run_config(load_config(f"{config}:{stage}", overrides)), root / stage)


def _evaluate(checkpoint: Path, held_out: Path, out: Path) -> None:
    _answers(load(checkpoint, batch_size=64), held_out, out)


def _answers(
    assistant: Assistant, held_out: Path, out: Path
) -> tuple[dict[str, BenchmarkRun], dict[str, BenchmarkRun]]:
    """(the benchmarks' answers with blind ones beside them, the referring answers and those to a
    few questions of the other benchmarks); what stands in the journals is not asked again."""
    folder, images = held_out / "benchmarks", held_out / "images"
    short = assistant.answerer(SHORT_TOKENS), assistant.identity(SHORT_TOKENS)
    seen = evaluate(*short, BENCHMARKS, folder, images, out)
    blind = evaluate(*short, BENCHMARKS, folder, images, out, blank=True)
    long = assistant.answerer(REFERRING_TOKENS), assistant.identity(REFERRING_TOKENS)
    referring = evaluate(*long, ("referring",), folder, images, out)
    more = evaluate(*short, MORE_BENCHMARKS, folder, images, out, limit=MORE_QUESTIONS)
    return with_blind(seen, blind), {**referring, **more}


def _report(root: Path, stages: Stages, held_out: Path) -> dict[str, Any]:
    assistant = load(root / LAST, batch_size=64)
    runs, others = _answers(assistant, held_out, root / "evaluation")
    heldout = summarise(list(runs.values()), others["referring"])
    everything = {**runs, **others}
    found = scores(everything)
    write_eval_report(
        root / "evaluation",
        EvalReport(
            assistant.checkpoint,
            "a generated toy world, in the benchmarks' formats (no figure of theirs)",
            everything,
            strict=scores(everything, strict=True),
            notes=[f"Of {', '.join(MORE_BENCHMARKS)} at most {MORE_QUESTIONS} questions each."],
        ),
    )
    timings = stages.reports()
    found_versions = versions()
    results = {
        "heldout": heldout,
        "benchmarks": found,
        "seconds": {stage.name: round(stage.seconds, 1) for stage in timings},
        "peak_memory_bytes": max(stage.peak_memory_bytes or 0 for stage in timings),
        "versions": found_versions,
    }
    write_json(root / "results.json", results)
    curves = [
        TrainingCurve(
            name, [(int(r["step"]), r["loss"], r["accuracy"]) for r in read_metrics(root / name)]
        )
        for name in TRAINING
    ]
    write_report(
        root / "report.html",
        RunReport(
            title="svit-jax demo",
            data_name="a generated toy world",
            heldout=heldout,
            stages=timings,
            curves=curves,
            scores=found,
            gallery=choose_gallery(list(runs.values())),
            referring=choose_referring(others["referring"]),
            versions=found_versions,
            settings={"checkpoint": assistant.checkpoint},
        ),
    )
    return results


def _table(results: dict[str, Any]) -> str:
    """The figures that matter, as the one table that ends the demo."""
    heldout = results["heldout"]
    lines = [f"{'held-out questions':<24}{'with picture':>14}{'blind':>10}{'questions':>12}"]
    for kind, row in [*sorted(heldout["by_kind"].items()), ("all", heldout)]:
        seen, blind = f"{row['with_image']:.1%}", f"{row['blind']:.1%}"
        lines.append(f"{kind:<24}{seen:>14}{blind:>10}{row['questions']:>12}")
    novel = heldout["novel_combinations"]
    lines.append(
        f"{'novel combinations':<24}{novel['with_image']:>14.1%}{novel['blind']:>10.1%}"
        f"{novel['questions']:>12}"
    )
    lines.append(f"{'referring, IoU >= 0.5':<24}{heldout['referring_iou_50']:>14.1%}")
    seconds = sum(results["seconds"].values())
    memory = results["peak_memory_bytes"] / 2**30
    lines.append(f"{seconds / 60:.1f} minutes, {memory:.1f} GiB at most")
    return "\n".join(lines)
