"""Time and memory of `svit data shard` and of planning, on as many dialogues as all of SVIT has.

    python benchmarks/data_scale.py
    nice -n 10 python benchmarks/data_scale.py --pictures 108077 --folder /big/disk \
        --out benchmarks/results

Writes a made-up LLaVA file of 28 dialogues a picture (3.03M at full size, in 2.2 GB of JSON) over
blank pictures, shards it and plans it, each in a process of its own, and holds each to 4 GiB.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from measuring import machine, measured, record, svit
from PIL import Image

from data_pipeline.text.tokenizer import train_tokenizer

LIMIT_GIB = 4.0
DIALOGUES = 28
PHRASE = """the man woman red clock left of sign in front building because it is standing near a
dog and looks at people who walk along street while car waits light tree white"""
WORDS = PHRASE.split()

PLAN = """import sys
from data_pipeline.loading.plan import build_plan, plan_inputs
from data_pipeline.records.source import open_records
from data_pipeline.text.templates import V1
from data_pipeline.text.tokenizer import Tokenizer
source, tokenizer = open_records(sys.argv[1]), Tokenizer(sys.argv[2])
sizes = dict(patches=576, row_length=2048, pictures_per_row=3, seed=0)
inputs = plan_inputs(source, tokenizer, V1, **sizes)
build_plan(source, tokenizer, V1, inputs).save(sys.argv[3])"""


def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def write_world(folder: Path, pictures: int) -> Path:
    """The pictures and the JSON; as in SVIT, a picture's rows stand in several places."""
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (4, 3)).save(folder / "blank.png")
    blank = (folder / "blank.png").read_bytes()
    for number in range(pictures):
        (images / f"{number}.png").write_bytes(blank)
    chance = random.Random(0)
    with (folder / "rows.json").open("w") as file:
        for part in range(DIALOGUES):
            for number in range(pictures):
                turns = [
                    {"from": "human", "value": "<image>\n" + text(chance, 14)},
                    {"from": "gpt", "value": text(chance, 95)},
                ]
                for _ in range(0 if part else 4):
                    turns += [
                        {"from": "human", "value": text(chance, 12)},
                        {"from": "gpt", "value": text(chance, 30)},
                    ]
                row = {"id": f"{part}_{number}", "image": f"{number}.png", "conversations": turns}
                file.write(",[\n"[not (part or number)] + json.dumps(row) + "\n")
        file.write("]")
    return folder / "rows.json"


def train_small_tokenizer(path: str) -> None:
    chance = random.Random(1)
    train_tokenizer([text(chance, 40) for _ in range(500)], path, 400)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=500, help="108077 is all of SVIT's")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="data_scale_", dir=options.folder))
    os.environ["TMPDIR"] = str(work)
    try:
        rows = write_world(work, options.pictures)
        data, tokenizer = str(work / "data"), str(work / "tokenizer.model")
        inputs = ("--llava", str(rows), "--images", str(work / "images"))
        output = ("--out", data, "--name", "scale", "--shards", "8")
        result = {
            "dialogues": options.pictures * DIALOGUES,
            "json_gb": round(rows.stat().st_size / 1e9, 2),
            "shard": svit("data", "shard", *inputs, *output)[0],
        }
        rows.unlink()
        print(json.dumps(result), flush=True)
        train_small_tokenizer(tokenizer)
        result["plan"] = measured(PLAN, data, tokenizer, str(work / "plan"))[0]
        result |= {
            **machine(),
            "command": f"python benchmarks/data_scale.py --pictures {options.pictures}",
        }
        print(json.dumps(result), flush=True)
        record(result, options.out, "data_scale")
    finally:
        shutil.rmtree(work)
    peak = max(result["shard"]["peak_gib"], result["plan"]["peak_gib"])
    if peak > LIMIT_GIB:
        print(f"not as promised: {peak} GiB, more than {LIMIT_GIB}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
