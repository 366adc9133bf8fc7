"""Time and memory of every data step, one after another, from a toy world to a checked dataset.

    python benchmarks/data_chain.py
    python benchmarks/data_chain.py --scenes 100000 --folder /big/disk --out benchmarks/results

Each step is the `svit data` command that a user types, a process of its own. The core subset has
1.46 rows a scene, as SVIT's 157,712 have of 108,077 pictures. 100,000 scenes need 12 GB of disk.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

LIMIT_GIB = 4.0
CORE_ROWS_A_SCENE = 157_712 / 108_077
MIXTURE = """name: toy mixture
inputs:
  core: {file: core.json}
  vqa: {file: vqa.json}
parts:
  - {name: core, input: core}
  - {name: vqa, input: vqa}
"""


def steps(work: Path, scenes: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, arguments of `svit data`) in their order."""
    world, train = work / "world", work / "world" / "train"
    images, lines = train / "images", work / "scenes.jsonl"
    captions = train / "coco" / "captions_train2014.json"
    yield "toy", ("toy", "--out", str(world), "--scenes", str(scenes))
    vg = ("--vg", str(train / "visual_genome"), "--coco", str(captions))
    yield "annotate", ("annotate", *vg, "--out", str(lines))
    yield "generate", ("generate", "--scenes", str(lines), "--out", str(work / "raw"))
    raw = ("--scenes", str(lines), "--raw")
    yield "clean", ("clean", *raw, str(work / "raw"), "--out", str(work / "clean"))
    yield "convert", ("convert", *raw, str(work / "clean"), "--out", str(work / "svit.json"))
    questions = (str(train / "vqa" / f"{name}.json") for name in ("questions", "annotations"))
    yield "convert_vqa", ("convert", "--vqa", *questions, "--out", str(work / "vqa.json"))
    core = ("--count", str(round(scenes * CORE_ROWS_A_SCENE)), "--out", str(work / "core.json"))
    yield "select", ("select", "--llava", str(work / "svit.json"), *core)
    (work / "mixture.yaml").write_text(MIXTURE)
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
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep what was made")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="data_chain_", dir=options.folder))
    result: dict[str, Any] = {"scenes": options.scenes, "steps": {}}
    try:
        for name, arguments in steps(work, options.scenes):
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
        "command": f"python benchmarks/data_chain.py --scenes {options.scenes}",
    }
    record(result, options.out, "data_chain")
    if peak > LIMIT_GIB:
        print(f"not as promised: {peak} GiB of {LIMIT_GIB}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
