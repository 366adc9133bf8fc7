"""Time and memory of `svit data select` on a file of the full SVIT's size.

    python benchmarks/data_select.py
    python benchmarks/data_select.py --scale 1 --folder /big/disk --out benchmarks/results

The file has the full SVIT's number of rows of each kind (times `--scale`) in LLaVA's format. Its
texts are what the template teacher says of the toy world, with other nouns and more sentences of
invented words and of our keywords, so that rows are as long as SVIT's and the vocabulary is wide.
Scale 1 needs 2.5 GB of disk. On a machine that does other work too (`--beside` says which), the
limit of time is held against the seconds on a core, else against the clock.
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

from data_pipeline.annotations.annotate import annotate
from data_pipeline.common.json_stream import json_list_writer, stream_list
from data_pipeline.common.progress import progress
from data_pipeline.generation.generate import generate
from data_pipeline.generation.template_teacher import TemplateTeacher
from data_pipeline.generation.wording import SHAPES
from data_pipeline.instructions.llava import ID_STEMS, convert
from data_pipeline.recipe.concepts import read_concepts
from data_pipeline.toy_world.generate import generate_world

MINUTES, LIMIT_GIB = 15.0, 4.0
# Rows of the full SVIT in LLaVA's format, by kind; 2.21 GB in all.
ROWS = {
    "conversation": 318_442,
    "complex_reasoning": 1_556_902,
    "detail_description": 106_274,
    "referring_qa": 1_011_181,
}
BYTES_A_ROW = 738
CORE = 157_712
SHAPE = re.compile(rf"\b({'|'.join(SHAPES)})(?=s|es|\b)")
INVENTED, SENTENCES = 20_000, 100_000


def teacher_rows(folder: Path) -> dict[str, list[list[str]]]:
    """By kind, what the template teacher says of 200 toy scenes: turns with {3} for a noun."""
    generate_world(folder / "toy", train_scenes=200, held_out_scenes=1, novel_scenes=0)
    train = folder / "toy" / "train"
    captions = [train / "coco" / "captions_train2014.json"]
    annotate(train / "visual_genome", captions, folder / "scenes.jsonl")
    generate(folder / "scenes.jsonl", folder / "raw", TemplateTeacher())
    convert(folder / "raw", folder / "scenes.jsonl", folder / "rows.json")
    kinds = {stem: kind for kind, stem in ID_STEMS.items()}
    found: dict[str, list[list[str]]] = {kind: [] for kind in ROWS}
    for row in stream_list(folder / "rows.json", "rows", "LLaVA's format"):
        turns = [
            SHAPE.sub(lambda match: f"{{{SHAPES.index(match[1])}}}", turn["value"])
            for turn in row["conversations"]
        ]
        found[kinds[row["id"].rpartition("_")[0]]].append(turns)
    return found


def more_sentences(rng: random.Random) -> list[str]:
    """Sentences of seven words; one in four is a keyword, the first keywords far more often."""
    syllables = [c + v for c in "bcdfglmnprstvz" for v in "aeiou"]
    invented = ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(INVENTED)]
    keywords = list(read_concepts().keywords)
    rng.shuffle(keywords)
    weights = [1 / (place + 5) for place in range(len(keywords))]
    sentences = []
    for _ in range(SENTENCES):
        words = rng.choices(invented, k=5)
        words.insert(rng.randrange(6), rng.choices(keywords, weights)[0])
        words.insert(rng.randrange(7), rng.choice(("the", "is", "of", rng.choice(keywords))))
        sentences.append(f"{' '.join(words).capitalize()}.")
    return sentences


def rows(scale: float, folder: Path) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    base, sentences = teacher_rows(folder), more_sentences(rng)
    nouns = sorted({sentence.split()[0].lower() for sentence in sentences})
    for kind, full in ROWS.items():
        for number in range(max(1, round(full * scale))):
            turns = rng.choice(base[kind])
            first = rng.randrange(len(nouns) - len(SHAPES))
            named = [turn.format(*nouns[first : first + len(SHAPES)]) for turn in turns]
            room = BYTES_A_ROW - 110 - sum(len(text) + 35 for text in named)
            while room > 20:
                added = rng.choice(sentences)
                room -= len(added) + 1
                place = 2 * rng.randrange(len(named) // 2) + 1
                named[place] += f" {added}"
            conversations = [
                {"from": ("human", "gpt")[place % 2], "value": text}
                for place, text in enumerate(named)
            ]
            picture = number % 108_077 + 1
            yield {
                "id": f"{ID_STEMS[kind]}_{number}",
                "image": f"vg/VG_100K/{picture}.jpg",
                "conversations": conversations,
            }


def write_source(path: Path, scale: float) -> dict[str, float]:
    """Writes the file; how many rows and questions it has, and how many gigabytes."""
    count = questions = 0
    with json_list_writer(path) as write:
        for row in progress(rows(scale, path.parent), "write", unit="row"):
            write(row)
            count += 1
            questions += len(row["conversations"]) // 2
    gigabytes = round(path.stat().st_size / 1e9, 3)
    return {"rows": count, "question_answers": questions, "gb": gigabytes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=0.01, help="1 is the full size")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    parser.add_argument("--beside", default="", help="what else ran on the machine, for the record")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="select_", dir=options.folder))
    try:
        source = write_source(work / "svit.json", options.scale)
        print(json.dumps(source), flush=True)
        count = round(CORE * min(1.0, options.scale))
        files = ("--llava", str(work / "svit.json"), "--out", str(work / "core.json"))
        run, answer = svit("data", "select", *files, "--count", str(count))
        result = {
            "source": source,
            **run,
            "rows_a_second": round(source["rows"] / run["seconds"]),
            "rows_a_core_second": round(source["rows"] / run["core_seconds"]),
            "selected": {key: answer[key] for key in ("items", "kinds", "yes", "no", "keywords")},
            **machine(),
            "beside": options.beside,
            "command": f"python benchmarks/data_select.py --scale {options.scale:g}",
        }
        print(json.dumps(result), flush=True)
        # Where others take their share of the cores, the clock says more about them.
        seconds = run["core_seconds"] if options.beside else run["seconds"]
        if answer["items"] != count or seconds > 60 * MINUTES or run["peak_gib"] > LIMIT_GIB:
            print(
                f"not as promised: {count} items, {MINUTES:g} minutes, {LIMIT_GIB:g} GiB",
                file=sys.stderr,
            )
            return 1
        record(result, options.out, "data_select")
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
