"""Time and memory of `svit data clean`, `convert`, its way back, and `mix`, at the released size.

    python benchmarks/instructions.py --scale 0.01
    nice -n 10 python benchmarks/instructions.py --folder /big/disk --out benchmarks/results

Writes raw files with as many pictures, dialogues and questions as SVIT's release (4.24 million
questions about 108,077 pictures) of made-up text with real boxes, and a LLaVA mixture with as many
rows of each part as the official one. Each command is a process of its own. Scale 1 needs 10 GB.
"""

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.recipe.mixture_spec import read_mixture

LIMIT_GIB = 4.0
PICTURES = 108_077
DIALOGUES = {
    "conversation": 318_442,
    "complex_reasoning": 1_556_902,
    "detail_description": 106_274,
    "referring_qa": 1_011_181,
}
CONVERSATION_PAIRS = 5
WORDS = (
    "the a man woman street red blue stands near behind of with and tree bus sign holding "
    "reason because light suggests likely building people walking small large quiet"
)
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
REGION = "Please provide a short description for this region: [0.32, 0.8, 0.59, 1.0]."
# Pictures' paths, questions of a row, and about how many characters its answers have.
FORMS: dict[str, tuple[str, list[str], int]] = {
    "sharegpt": ("", ["Write about it."] * 4, 1400),
    "gqa": ("gqa/images/{}.jpg", ["Is it red?" + SHORT, *["Is it big?"] * 9], 4),
    "ocr_vqa": ("ocr_vqa/images/{}.jpg", ["Who wrote it?" + SHORT, *["Which title?"] * 4], 20),
    "textcaps": ("textvqa/train_images/{}.jpg", ["Provide a one-sentence caption."], 60),
    "vg": ("vg/VG_100K/{}.jpg", [REGION] * 10, 30),
    "refcoco": ("coco/train2017/{:012d}.jpg", [REGION] * 8, 20),
    "a_okvqa": ("coco/train2017/{:012d}.jpg", ["What is it?" + LETTER], 1),
    "okvqa": ("coco/train2017/{:012d}.jpg", ["What is it for?" + SHORT], 6),
    "vqav2": ("coco/train2017/{:012d}.jpg", ["Is it?" + SHORT, *["How many are there?"] * 4], 4),
    "llava_instruct": ("coco/train2017/{:012d}.jpg", ["What is happening?", "Why?"], 400),
    "svit_core": ("vg/VG_100K_2/{}.jpg", ["Why is it so?", "And why?"], 300),
}


class Text:
    """Made-up text: stretches of one long string, so that making it is quick."""

    def __init__(self, seed: int):
        self._rng = random.Random(seed)
        self._long = " ".join(self._rng.choices(WORDS.split(), k=200_000))

    def of(self, length: int) -> str:
        start = self._rng.randrange(len(self._long) - 2 * length)
        return self._long[start : start + self._rng.randint(length // 2, length + length // 2)]

    def box(self) -> str:
        xs = sorted(self._rng.sample(range(1001), 2))
        ys = sorted(self._rng.sample(range(1001), 2))
        return f"<st>thing<ed> {[xs[0] / 1000, ys[0] / 1000, xs[1] / 1000, ys[1] / 1000]}"

    def pair(self, kind: str) -> list[dict[str, str]]:
        if kind == "referring_qa":
            question, answer = f"Where is {self.box()} from {self.box()}?", f"{self.box()} is there"
        else:
            question, answer = f"What about {self.of(60)}?", ""
        length = {"detail_description": 1100, "complex_reasoning": 330}.get(kind, 120)
        return [
            {"from": "user", "value": question},
            {"from": "gpt", "value": f"{answer} {self.of(length)}."},
        ]


def raw_rows(kind: str, pictures: int, dialogues: int, text: Text) -> Iterator[dict[str, Any]]:
    pairs = CONVERSATION_PAIRS if kind == "conversation" else 1
    for number in range(pictures):
        share = dialogues * (number + 1) // pictures - dialogues * number // pictures
        yield {
            "image_id": number + 1,
            "conversations": [
                {"content": [turn for _ in range(pairs) for turn in text.pair(kind)]}
                for _ in range(share)
            ],
        }


def write_raw_world(folder: Path, scale: float) -> None:
    """Writes raw files and image_data.json."""
    pictures = max(1, int(PICTURES * scale))
    rng = random.Random(0)
    with json_list_writer(folder / "image_data.json") as write:
        for number in range(pictures):
            home = "VG_100K" if number % 5 else "VG_100K_2"
            write(
                {
                    "image_id": number + 1,
                    "url": f"https://example.org/{home}/{number + 1}.jpg",
                    "width": rng.randint(300, 1280),
                    "height": rng.randint(300, 1280),
                }
            )
    for seed, (kind, count) in enumerate(DIALOGUES.items()):
        with json_list_writer(folder / "raw" / f"{kind}.json") as write:
            for row in raw_rows(kind, pictures, int(count * scale), Text(seed)):
                write(row)


def write_mixture(folder: Path, scale: float) -> None:
    """The two downloads of the mixture, and its description with counts of this scale."""
    mixture = read_mixture()
    text = Text(7)
    counts = {part.name: max(1, int((part.rows or 0) * scale)) for part in mixture.parts}
    for name, entry in mixture.inputs.items():
        parts = [part.name for part in mixture.parts if part.input == name]
        with json_list_writer(folder / entry.file) as write:
            for part in parts:
                path, questions, length = FORMS[part]
                for number in range(counts[part]):
                    turns = [
                        {"from": role, "value": value}
                        for question in questions
                        for role, value in (("human", question), ("gpt", text.of(length + 2)))
                    ]
                    row: dict[str, Any] = {"id": f"{part}/{number}", "conversations": turns}
                    write(row | {"image": path.format(number)} if path else row)
    described = {
        "name": mixture.name,
        "inputs": {name: {"file": entry.file} for name, entry in mixture.inputs.items()},
        "parts": [
            {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(part).items()
                if value
            }
            | {"rows": counts[part.name]}
            for part in mixture.parts
        ],
    }
    (folder / "mixture.yaml").write_text(json.dumps(described))


COMMANDS = ("clean", "convert", "reverse", "mix")


def commands(work: Path) -> dict[str, tuple[str, ...]]:
    raw, sizes = str(work / "raw"), str(work / "image_data.json")
    paths = ("--image-data", sizes, "--prefix", "vg/")
    return {
        "clean": ("clean", "--raw", raw, "--out", str(work / "cleaned"), "--image-data", sizes),
        "convert": ("convert", "--raw", raw, "--out", str(work / "llava.json"), *paths),
        "reverse": (
            *("convert", "--reverse", str(work / "llava.json")),
            *("--out", str(work / "back"), *paths),
        ),
        "mix": (
            *("mix", "--mixture", str(work / "mixture.yaml")),
            *("--out", str(work / "mix.json")),
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=0.01, help="1 is the released size")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--input", help="a folder that this program kept: no input is made")
    parser.add_argument("--keep", action="store_true", help="keep the input and the results")
    parser.add_argument("--steps", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    work = Path(options.input or tempfile.mkdtemp(prefix="instructions_", dir=options.folder))
    result: dict[str, Any] = {"scale": options.scale}
    try:
        if not options.input:
            start = time.perf_counter()
            write_raw_world(work, options.scale)
            write_mixture(work, options.scale)
            print(f"made {work} in {time.perf_counter() - start:.0f} s", flush=True)
        result["raw_gb"] = round(sum(f.stat().st_size for f in (work / "raw").iterdir()) / 1e9, 2)
        result["mixture_gb"] = round((work / "llava_v1_5_mix665k.json").stat().st_size / 1e9, 2)
        for name in options.steps:
            took, _ = svit("data", *commands(work)[name])
            result[name] = {**took, **machine()}
            print(json.dumps({name: result[name]}), flush=True)
    finally:
        if not options.keep and not options.input:
            shutil.rmtree(work)
    result |= {
        **machine(),
        "command": f"python benchmarks/instructions.py --scale {options.scale}",
    }
    record(result, options.out, "instructions")
    peak = max(result[name]["peak_gib"] for name in options.steps)
    if peak > LIMIT_GIB:
        print(f"not as promised: {peak} GiB of {LIMIT_GIB}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
