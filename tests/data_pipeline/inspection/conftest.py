"""A small dataset without a flaw, to be spoilt by tests one flaw at a time."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.records.writer import write_dataset
from data_pipeline.text.tokenizer import Tokenizer, train_tokenizer


def picture_bytes(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def row(row_id: str, image: str | None, *texts: str) -> dict[str, Any]:
    turns = [
        {"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)
    ]
    if image is None:
        return {"id": row_id, "conversations": turns}
    turns[0]["value"] = "<image>\n" + turns[0]["value"]
    return {"id": row_id, "image": image, "conversations": turns}


class Made:
    """Instructions about a wide (80x60), a tall (60x80) and a square picture, and text alone.

    On their padded squares the wide picture spans y 0.125 to 0.875, the tall one x likewise.
    """

    row = staticmethod(row)

    def __init__(self, root: Path):
        self.root = root
        self.images = root / "images"
        self.sizes = {"vg/1.jpg": (80, 60), "vg/2.jpg": (60, 80), "coco/3.jpg": (50, 50)}
        for number, (name, (width, height)) in enumerate(self.sizes.items()):
            path = self.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture_bytes(number, width, height))
        self.rows = copy.deepcopy(
            [
                row("svit_conversation_0", "vg/1.jpg", "What is it?", "A clock.", "Why?", "Time."),
                row(
                    "svit_referring_0",
                    "vg/1.jpg",
                    "Where is the clock? Locate the objects with their coordinates.",
                    "The clock [0.1, 0.125, 0.25, 0.5] hangs by the sign [0.3, 0.2, 1.0, 0.875].",
                ),
                row("svit_referring_1", "vg/2.jpg", "Where?", "There: [0.125, 0.0, 0.875, 1.0]."),
                row("vqa_3", "coco/3.jpg", "Is it red? [1] Say so.", "Yes", "Is it blue?", "No"),
                row("chat_4", None, "What is 2 + 2?", "4, or in a list [1.5, 2.5]: 4."),
            ]
        )

    def by_id(self, row_id: str) -> dict[str, Any]:
        (found,) = [one for one in self.rows if one["id"] == row_id]
        return found

    def set_text(self, row_id: str, turn: int, text: str) -> None:
        self.by_id(row_id)["conversations"][turn]["value"] = text

    @property
    def llava(self) -> Path:
        path = self.root / "rows.json"
        path.write_text(json.dumps(self.rows))
        return path

    def shard(self) -> Path:
        out = self.root / "dataset"
        write_dataset([self.llava], self.images, out, "made", shards=2)
        return out


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    texts = ["What is it? A clock is a thing that tells the time of day, by hands and numbers."] * 3
    return train_tokenizer(texts, path, 300)
