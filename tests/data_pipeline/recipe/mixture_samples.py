"""A small LLaVA mixture whose rows say in their ids of which part they are."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from data_pipeline.recipe.mixture_spec import Mixture, read_mixture

# Prompts as LLaVA's paper and issues show them, and the pictures' paths of LLaVA's README.
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
REGION = "Please provide a short description for this region: [0.32, 0.8, 0.59, 1.0]."
PLACE = "Please provide the bounding box coordinate of the region this sentence describes: a cup."
CAPTION = "Provide a one-sentence caption for the provided image.\nReference OCR token: A, B"
COCO, VG = "coco/train2017/{:012d}.jpg", "vg/VG_100K/{}.jpg"
FORMS: dict[str, tuple[str | None, list[list[str]]]] = {
    "sharegpt": (None, [["Write a poem."], ["Hi", f"What is 'coco'?{SHORT}"]]),
    "gqa": ("gqa/images/{}.jpg", [["Is it red?" + SHORT, "Is it big?"]]),
    "ocr_vqa": ("ocr_vqa/images/{}.jpg", [["Who wrote it?" + SHORT]]),
    "textcaps": ("textvqa/train_images/{}.jpg", [[CAPTION]]),
    "vg": (VG, [[REGION, PLACE], [PLACE]]),
    "refcoco": (COCO, [[REGION], [PLACE, REGION, PLACE, PLACE]]),
    "a_okvqa": (COCO, [["What is it?" + LETTER], ["And that?" + LETTER.replace("'", "\u2019")]]),
    "okvqa": (COCO, [["What is it for?" + SHORT], ["What is it?" + SHORT, "And that?"]]),
    "vqav2": (COCO, [["Is it?" + SHORT, "Is he?", "Is she?"], ["Q?" + SHORT, *["Is it?"] * 9]]),
    "llava_instruct": (COCO, [["What is happening?"], ["Describe it.", "Why?", "How?"]]),
    "svit_core": (VG, [["Where is it? Locate the objects with their coordinates."], ["Why?"]]),
}
# As many rows as in the real mixture, divided by a thousand and rounded down.
COUNTS = {"svit_core": 157, "sharegpt": 40, "gqa": 72, "ocr_vqa": 80, "textcaps": 21, "vg": 86}
COUNTS |= {"refcoco": 48, "a_okvqa": 66, "okvqa": 8, "vqav2": 82, "llava_instruct": 157}


def part_rows(part: str, count: int) -> list[dict[str, Any]]:
    path, forms = FORMS[part]
    rows = []
    for number in range(count):
        turns = []
        for place, question in enumerate(forms[number % len(forms)]):
            marker = "<image>\n" if place == 0 and path else ""
            turns.append({"from": "human", "value": marker + question})
            turns.append({"from": "gpt", "value": f"Answer {number}."})
        row: dict[str, Any] = {"id": f"{part}/{number}", "conversations": turns}
        rows.append(row if path is None else row | {"image": path.format(number)})
    return rows


def write_files(folder: Path, **changed: int) -> Path:
    """Writes the two official downloads, with so many rows of each part; returns where they are."""
    rows = {part: part_rows(part, count) for part, count in (COUNTS | changed).items()}
    home = folder / "downloads"
    home.mkdir(exist_ok=True)
    (home / "SVIT_core_150K.json").write_text(json.dumps(rows.pop("svit_core")))
    shared = [row for part in rows.values() for row in part]
    random.Random(0).shuffle(shared)
    (home / "llava_v1_5_mix665k.json").write_text(json.dumps(shared, indent=2))
    return home


def small_mixture() -> Mixture:
    """The published mixture with our small counts in place of its own."""
    mixture = read_mixture()
    parts = tuple(dataclasses.replace(part, rows=COUNTS[part.name]) for part in mixture.parts)
    return dataclasses.replace(mixture, parts=parts)
