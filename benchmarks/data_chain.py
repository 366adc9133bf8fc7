"""Time and memory of every data step, one after another, from annotations to a checked dataset.

    python benchmarks/data_chain.py
    python benchmarks/data_chain.py --scenes 100000 --folder /big/disk --out benchmarks/results
    python benchmarks/data_chain.py --vg visual_genome --out benchmarks/results

The annotations are a toy world's, or those of a Visual Genome folder, with stand-in pictures. Each
step is the `svit data` command that a user types, a process of its own. The core subset of the toy
world has 1.46 rows a scene, as SVIT's 157,712 have of 108,077 pictures. 100,000 scenes need 12 GB
of disk.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

LIMIT_GIB = 4.0
CORE_ROWS_A_SCENE = 157_712 / 108_077
Step = tuple[str, tuple[str, ...]]


def toy_scenes(work: Path, images: Path, scenes: int) -> Iterator[Step]:
    train = images.parent
    yield "toy", ("toy", "--out", str(train.parent), "--scenes", str(scenes))
    captions = train / "coco" / "captions_train2014.json"
    vg = ("--vg", str(train / "visual_genome"), "--coco", str(captions))
    yield "annotate", ("annotate", *vg, "--out", str(work / "scenes.jsonl"))
    questions = (str(train / "vqa" / f"{name}.json") for name in ("questions", "annotations"))
    yield "convert_vqa", ("convert", "--vqa", *questions, "--out", str(work / "vqa.json"))


def vg_scenes(work: Path, images: Path, vg: str) -> Iterator[Step]:
    lines = ("--out", str(work / "scenes.jsonl"), "--stand-ins", str(images))
    yield "annotate", ("annotate", "--vg", vg, *lines)


def to_dataset(work: Path, images: Path, core: Sequence[str]) -> Iterator[Step]:
    """`core` are further arguments of `svit data select`."""
    lines = work / "scenes.jsonl"
    yield "generate", ("generate", "--scenes", str(lines), "--out", str(work / "raw"))
    raw = ("--scenes", str(lines), "--raw")
    yield "clean", ("clean", *raw, str(work / "raw"), "--out", str(work / "clean"))
    yield "convert", ("convert", *raw, str(work / "clean"), "--out", str(work / "svit.json"))
    chosen = ("--out", str(work / "core.json"), *core)
    yield "select", ("select", "--llava", str(work / "svit.json"), *chosen)
    parts = [name for name in ("core", "vqa") if (work / f"{name}.json").exists()]
    mixture = {
        "name": "chain",
        "inputs": {name: {"file": f"{name}.json"} for name in parts},
        "parts": [{"name": name, "input": name} for name in parts],
    }
    (work / "mixture.yaml").write_text(json.dumps(mixture))
    mixed = work / "mix.json"
    yield "mix", ("mix", "--mixture", str(work / "mixture.yaml"), "--out", str(mixed))
    rows = ("--llava", str(mixed), "--images", str(images))
    data = str(work / "dataset")
    yield "shard", ("shard", *rows, "--out", data, "--name", "chain", "--workers", "2")
    yield "check", ("check", *rows, "--data", data)
    yield "stats", ("stats", "--data", data, "--out", str(work / "stats.html"))
    yield "browse", ("browse", "--data", data, "--out", str(work / "browse.html"))
    whole = ("--llava", str(work / "svit.json"), "--images", str(images))
    yield "shard_all", ("shard", *whole, "--out", str(work / "all"), "--name", "all")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=300, help="of the toy world")
    parser.add_argument("--vg", help="a Visual Genome folder, in place of the toy world")
    parser.add_argument("--count", type=int, default=60, help="rows of the core subset, with --vg")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep what was made")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="data_chain_", dir=options.folder))
    images = work / "images"
    if options.vg:
        scenes = vg_scenes(work, images, options.vg)
        # Of a few scenes, whole dialogues are too coarse to come out even in yes and no.
        core = ("--count", str(options.count), "--unit", "qa")
    else:
        images = work / "world" / "train" / "images"
        scenes = toy_scenes(work, images, options.scenes)
        core = ("--count", str(round(options.scenes * CORE_ROWS_A_SCENE)))
    result: dict[str, Any] = {"steps": {}}
    try:
        for name, arguments in itertools.chain(scenes, to_dataset(work, images, core)):
            took, answer = svit("data", *arguments)
            counts = {key: value for key, value in answer.items() if isinstance(value, int)}
            result["steps"][name] = {**took, **counts}
            print(json.dumps({name: result["steps"][name]}), flush=True)
    finally:
        if options.keep:
            print(f"kept in {work}")
        else:
            shutil.rmtree(work)
    peak = max(step["peak_gib"] for step in result["steps"].values())
    result |= {
        "seconds": round(sum(step["seconds"] for step in result["steps"].values()), 1),
        "peak_gib": peak,
        **machine(),
        "command": "python benchmarks/data_chain.py "
        + ("--vg visual_genome" if options.vg else f"--scenes {options.scenes}"),
    }
    record(result, options.out, "data_chain_vg" if options.vg else "data_chain")
    if peak > LIMIT_GIB:
        print(f"not as promised: {peak} GiB of {LIMIT_GIB}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
