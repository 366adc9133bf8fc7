"""What rounding to int8 changes in the answers of the demo's model.

    make demo
    python benchmarks/int8_accuracy.py demo_run --out benchmarks/results

The held-out questions of four benchmarks in toy form, greedy, by the model as it was trained, with
its decoder's kernels in int8, and with its cache in int8 too: accuracy, and answers that change.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

BENCHMARKS = ("vqav2", "gqa", "mme", "pope")
HEADLINES = {"vqav2": "accuracy", "gqa": "accuracy", "mme": "perception", "pope": "accuracy"}


def answer(demo: Path, int8: str, out: Path) -> dict[str, Any]:
    """The headline figures, and every answer by benchmark and question."""
    held_out = demo / "world" / "held_out"
    _, scores = svit(
        *("eval", "--checkpoint", str(demo / "finetune"), "--benchmark", *BENCHMARKS),
        *("--data", str(held_out / "benchmarks"), "--images", str(held_out / "images")),
        *("--batch-size", "64", "--max-new-tokens", "16", "--int8", int8, "--out", str(out)),
    )
    answers = {}
    for name in BENCHMARKS:
        for line in (out / f"{name}.answers.jsonl").read_text().splitlines():
            row = json.loads(line)
            answers[name, row["question_id"]] = row["text"]
    figures = {name: round(scores[name][figure], 2) for name, figure in HEADLINES.items()}
    return {"figures": figures, "answers": answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("demo", type=Path, help="workdir of a finished demo")
    parser.add_argument("--out", help="folder of int8_accuracy.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            int8: answer(given.demo, int8, Path(scratch) / int8)
            for int8 in ("none", "weights", "all")
        }
    exact = found["none"]["answers"]
    result: dict[str, Any] = {"questions": len(exact)}
    for int8, each in found.items():
        changed = sum(each["answers"][key] != text for key, text in exact.items())
        result[int8] = {**each["figures"], "answers_changed": changed}
    result |= machine()
    print(json.dumps(result, indent=1))
    record(result, given.out, "int8_accuracy")


if __name__ == "__main__":
    main()
