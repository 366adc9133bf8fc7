"""How soon the first batch is ready, at step 0 and at step 1,000,000, with the process up.

    python benchmarks/input_order.py
    python benchmarks/input_order.py --out benchmarks/results

On the demo's toy world, packed; the quickest of several loaders each, taken in turns, without
worker processes and with two. Fails where the late step takes more than 20% longer without workers;
with workers their start, of seconds, hides any difference.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from measuring import machine, record

from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.loading.pipeline import ImageSpec, make_loader
from data_pipeline.loading.plan import Plan, build_plan, plan_inputs
from data_pipeline.records.source import RecordSource, open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.corpus import training_texts
from data_pipeline.text.templates import V1
from data_pipeline.text.tokenizer import Tokenizer, train_tokenizer
from data_pipeline.toy_world.generate import generate_world

STEPS = 0, 1_000_000
ALLOWED = 1.2
ROWS = 16


def prepare(root: Path) -> tuple[Plan, RecordSource, Tokenizer]:
    generate_world(root / "world", train_scenes=200, held_out_scenes=1, novel_scenes=0)
    split = root / "world" / "train"
    vqa = split / "vqa" / "questions.json", split / "vqa" / "annotations.json"
    convert_vqa(*vqa, root / "rows.json", pairs_per_dialogue=2)
    write_dataset([root / "rows.json"], split / "images", root / "data", "toy")
    source = open_records(root / "data")
    dialogues = [dialogue for entry in source.entries for dialogue in entry.dialogues]
    tokenizer = train_tokenizer(training_texts(dialogues), root / "tokenizer.model", 400)
    inputs = plan_inputs(
        source, tokenizer, V1, patches=16, row_length=256, pictures_per_row=4, seed=0
    )
    return build_plan(source, tokenizer, V1, inputs).save(root / "plan"), source, tokenizer


def seconds_to_first(world: tuple[Plan, RecordSource, Tokenizer], step: int, workers: int) -> float:
    plan, source, tokenizer = world
    start = time.perf_counter()
    loader = make_loader(plan, source, tokenizer, V1, ImageSpec(32), ROWS, step, 1, workers=workers)
    next(loader)
    took = time.perf_counter() - start
    assert next(loader, None) is None
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--worker-repeats", type=int, default=2)
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        world = prepare(Path(folder))
        seconds_to_first(world, 0, 0)
        for workers, repeats in ((0, options.repeats), (2, options.worker_repeats)):
            taken: dict[int, list[float]] = {step: [] for step in STEPS}
            for _ in range(repeats):
                for step in STEPS:
                    taken[step].append(seconds_to_first(world, step, workers))
            first, late = (min(taken[step]) for step in STEPS)
            found[f"{workers} workers"] = {
                "repeats": repeats,
                "milliseconds_at_step_0": round(1e3 * first, 1),
                "milliseconds_at_step_1000000": round(1e3 * late, 1),
                "ratio": round(late / first, 3),
            }
        rows = len(world[0])
    result = {
        "rows_of_the_plan": rows,
        "rows_a_batch": ROWS,
        **found,
        **machine(),
        "command": "python benchmarks/input_order.py",
    }
    print(json.dumps(result))
    record(result, options.out, "input_order")
    ratio = found["0 workers"]["ratio"]
    if ratio > ALLOWED:
        print(f"not as promised: a late step takes {ratio} of the first", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
