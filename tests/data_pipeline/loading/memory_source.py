"""A small dataset in memory, with the interface of data_pipeline.records.RecordSource."""

import dataclasses
import io

import numpy as np
from PIL import Image

from data_pipeline.common.dialogue import Dialogue, Turn
from data_pipeline.common.errors import BadRecordError

WORDS = ["a", "the", "cat", "dog", "red", "green", "mat", "sits", "on", "under", "left", "right"]


@dataclasses.dataclass(frozen=True)
class MemoryRecord:
    image_id: str
    images: tuple[bytes, ...]
    dialogues: tuple[Dialogue, ...]


@dataclasses.dataclass(frozen=True)
class MemorySource:
    """`damaged` records raise, as a torn shard does."""

    records: tuple[MemoryRecord, ...]
    damaged: frozenset[int] = frozenset()
    fingerprint: str = "memory-1"

    @property
    def entries(self):
        return self.records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index: int) -> MemoryRecord:
        if index in self.damaged:
            raise BadRecordError(f"record {index} can't be read.")
        return self.records[index]


def flat_picture(value: int, size: int = 12) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def make_source(records: int, seed: int = 0) -> MemorySource:
    """Record i has a picture of grey 10 + i, every fifth none; one to three dialogues each."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(records):
        has_picture = i % 5 != 4
        dialogues = []
        for j in range(int(rng.integers(1, 4))):
            turns = []
            for n in range(int(rng.integers(1, 3))):
                question = " ".join(rng.choice(WORDS, rng.integers(1, 9)))
                marker = "<image>\n" if has_picture and n == 0 else ""
                turns.append(Turn("human", marker + question))
                turns.append(Turn("gpt", " ".join(rng.choice(WORDS, rng.integers(1, 12)))))
            dialogues.append(Dialogue(f"{i}-{j}", tuple(turns)))
        images = (flat_picture(10 + i),) if has_picture else ()
        made.append(MemoryRecord(f"{i}.png" if has_picture else "", images, tuple(dialogues)))
    return MemorySource(tuple(made))
