import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture_bytes(seed: int, width: int, height: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def row(row_id: str, image: str | None, *texts: str) -> dict:
    """A LLaVA-format row; the marker is put before the first question of a pictured one."""
    turns = [
        {"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)
    ]
    if image is None:
        return {"id": row_id, "conversations": turns}
    turns[0]["value"] = "<image>\n" + turns[0]["value"]
    return {"id": row_id, "image": image, "conversations": turns}


class World:
    """Two instruction files over three pictures, one of them a PNG, and one row of text alone."""

    picture_bytes = staticmethod(picture_bytes)
    row = staticmethod(row)

    def __init__(self, root: Path):
        self.root = root
        self.images = root / "images"
        self.pictures = {
            "VG_100K/1.jpg": picture_bytes(1, 12, 8),
            "VG_100K/2.png": picture_bytes(2, 7, 9, "PNG"),
            "coco/3.jpg": picture_bytes(3, 6, 6),
        }
        for name, data in self.pictures.items():
            self.put(name, data)
        self.rows_a = [
            row("a0", "VG_100K/1.jpg", "What is it?", "A clock."),
            row("a1", None, "Hello?", "Grüße, 你好!", "And?", "Bye."),
            row("a2", "coco/3.jpg", "Where?", "Left."),
            row("a3", "VG_100K/1.jpg", "Who?", "A man.", "Why?", "He waits."),
        ]
        self.rows_b = [
            row("b0", "coco/3.jpg", "How many?", "Two."),
            row("b1", "VG_100K/2.png", "Colour?", ""),
        ]
        self.paths = [self.write("a.json", self.rows_a), self.write("b.json", self.rows_b)]

    def put(self, name: str, data: bytes) -> None:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def write(self, name: str, rows: object) -> Path:
        path = self.root / name
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    # What grouping by picture in first-seen order must give, written out by hand.
    order = (
        ("VG_100K/1.jpg", ("a0", "a3")),
        ("", ("a1",)),
        ("coco/3.jpg", ("a2", "b0")),
        ("VG_100K/2.png", ("b1",)),
    )

    def turns(self, row_id: str) -> list[tuple[str, str]]:
        (found,) = [r for r in self.rows_a + self.rows_b if r["id"] == row_id]
        return [(turn["from"], turn["value"]) for turn in found["conversations"]]


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)
