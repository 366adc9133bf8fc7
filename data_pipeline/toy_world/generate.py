"""The whole toy world in one folder, in the layouts of the real data."""

import dataclasses
from typing import Any

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, write_json
from data_pipeline.common.progress import progress
from data_pipeline.toy_world.benchmarks import write_benchmarks
from data_pipeline.toy_world.choice_benchmarks import write_choice_benchmarks
from data_pipeline.toy_world.judged_benchmarks import write_judged_benchmarks
from data_pipeline.toy_world.more_benchmarks import write_more_benchmarks
from data_pipeline.toy_world.questions import KINDS, Balance
from data_pipeline.toy_world.world import ToyScene, make_scene
from data_pipeline.toy_world.write import (
    write_captions,
    write_pictures,
    write_visual_genome,
    write_vqa,
)

FIRST_TRAIN_ID = 1
FIRST_HELD_OUT_ID = 1_000_000

_MARKER = "world.json"
# Part of a world's settings: raise it when the same settings come to mean other files.
_VERSION = 3


@dataclasses.dataclass(frozen=True)
class WorldReport:
    """What the folder holds; `already_there` when it was finished before this call."""

    root: str
    scenes: dict[str, int]
    vqa_questions: dict[str, int]
    benchmark_questions: dict[str, int]
    already_there: bool


def generate_world(
    root: PathLike,
    train_scenes: int = 4000,
    held_out_scenes: int = 300,
    novel_scenes: int = 100,
    seed: int = 0,
    questions_per_scene: int = 12,
) -> WorldReport:
    """Makes `root/train` and `root/held_out` and returns what they hold.

    Each has visual_genome/, coco/, images/ and vqa/; held_out/ also has benchmarks/. Novel scenes
    are held-out scenes that show a (colour, shape) pair which no other scene shows; their ids
    follow the held-out ones'. A finished world of the same settings is left alone; one that was
    interrupted goes on. Raises UserError where `root` holds a world of other settings.
    """
    settings = {
        "version": _VERSION,
        "train_scenes": train_scenes,
        "held_out_scenes": held_out_scenes,
        "novel_scenes": novel_scenes,
        "seed": seed,
        "questions_per_scene": questions_per_scene,
    }
    _check_counts(settings)
    folder = epath.Path(root)
    found = _read_marker(folder, settings)
    if found and found["finished"]:
        return WorldReport(root=str(folder), already_there=True, **found["holds"])
    write_json(folder / _MARKER, {"settings": settings, "finished": False})

    train = [make_scene(FIRST_TRAIN_ID + k, seed) for k in range(train_scenes)]
    held_out = [
        make_scene(FIRST_HELD_OUT_ID + k, seed, novel=k >= held_out_scenes)
        for k in range(held_out_scenes + novel_scenes)
    ]
    resumed = found is not None
    benchmarks = folder / "held_out" / "benchmarks"
    holds = {
        "scenes": {"train": train_scenes, "held_out": held_out_scenes, "novel": novel_scenes},
        "vqa_questions": {
            "train": _write_split(folder / "train", train, settings, resumed),
            "held_out": _write_split(folder / "held_out", held_out, settings, resumed),
        },
        "benchmark_questions": {
            **write_benchmarks(benchmarks, held_out, seed),
            **write_choice_benchmarks(benchmarks, benchmarks.parent / "images", held_out, seed),
            **write_more_benchmarks(benchmarks, held_out, seed),
            **write_judged_benchmarks(benchmarks, held_out, seed),
        },
    }
    write_json(folder / _MARKER, {"settings": settings, "finished": True, "holds": holds})
    return WorldReport(root=str(folder), already_there=False, **holds)


def _write_split(
    folder: epath.Path, scenes: list[ToyScene], settings: dict[str, int], resumed: bool
) -> int:
    seed, per_scene = settings["seed"], settings["questions_per_scene"]
    write_visual_genome(folder / "visual_genome", scenes, seed)
    write_captions(folder / "coco" / "captions_train2014.json", scenes, seed)
    write_pictures(folder / "images", scenes, skip_existing=resumed)
    balance = Balance(f"{seed}/vqa/{folder.name}")
    shares = dict.fromkeys(KINDS, 1.0)
    asked = (
        (scene, balance.choose(scene, shares, per_scene))
        for scene in progress(scenes, f"asking about {folder.name}", unit="scene")
    )
    return write_vqa(folder / "vqa", asked, "train2014")


def _read_marker(folder: epath.Path, settings: dict[str, int]) -> dict[str, Any] | None:
    path = folder / _MARKER
    if not path.exists():
        return None
    marker = read_json(path, "toy world marker")
    if not isinstance(marker, dict) or "settings" not in marker or "finished" not in marker:
        raise UserError(f"{path} is not a toy world's marker; choose another folder for the world.")
    if marker["settings"] != settings:
        theirs = marker["settings"]
        changed = ", ".join(
            f"{key} {theirs.get(key)} instead of {value}"
            for key, value in settings.items()
            if theirs.get(key) != value
        )
        raise UserError(
            f"the folder {folder} holds a toy world of other settings ({changed}); "
            "choose another folder, or delete this one to make it anew."
        )
    return marker


def _check_counts(settings: dict[str, int]) -> None:
    for key in ("train_scenes", "held_out_scenes", "questions_per_scene"):
        if settings[key] < 1:
            raise UserError(f"a toy world's {key} is {settings[key]}; give a number from 1 up.")
    if settings["novel_scenes"] < 0:
        raise UserError(
            f"a toy world's novel_scenes is {settings['novel_scenes']}; give 0 or more."
        )
    if settings["train_scenes"] > FIRST_HELD_OUT_ID - FIRST_TRAIN_ID:
        raise UserError(
            f"a toy world's train_scenes is {settings['train_scenes']}; give fewer than "
            f"{FIRST_HELD_OUT_ID}, where the held-out ids begin."
        )
