"""Rows in LLaVA's format, made by hand, and pools made by chance."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.generation.kinds import KINDS
from data_pipeline.instructions.llava import ID_STEMS
from data_pipeline.recipe.select_pool import Pool

Row = dict[str, Any]


def _row(kind: str, number: int, *pairs: tuple[str, str]) -> Row:
    turns = [text for pair in pairs for text in pair]
    return {
        "id": f"{ID_STEMS[kind]}_{number}",
        "image": f"VG_100K/{number}.jpg",
        "conversations": [
            {
                "from": ("human", "gpt")[place % 2],
                "value": text if place else f"<image>\n{text}",
            }
            for place, text in enumerate(turns)
        ],
    }


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    return _row


@pytest.fixture(scope="session")
def many_rows() -> list[Row]:
    """400 rows of all kinds whose texts hold few or many of the words w0x to w19x."""
    rng = random.Random(5)
    rows = []
    for number in range(400):
        kind = KINDS[number % 4]
        pairs = []
        for _ in range(rng.randint(2, 4) if kind == "conversation" else 1):
            words = [f"w{chr(97 + min(rng.randrange(20), rng.randrange(20)))}x" for _ in range(6)]
            start = rng.choice(["Yes, ", "Yes. ", "yes ", "No, ", "It is ", "Notably ", "The "])
            question = f"{rng.choice(['Is it', 'Where is'])} {words[0]}?"
            pairs.append((question, start + " ".join(words)))
        rows.append(_row(kind, number, *pairs))
    return rows


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[Any], name: str = "svit.json") -> Path:
        (tmp_path / name).write_text(json.dumps(rows))
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., Pool]:
    """A pool from each item's kind, (yes, no) and keywords; ties as given or in the order."""

    def make(
        kinds: list[int],
        answers: list[tuple[int, int]],
        keywords: list[list[int]],
        ties: list[int] | None = None,
    ) -> Pool:
        size = len(kinds)
        return Pool(
            kind=np.array(kinds, np.int8),
            yes=np.array([yes for yes, _ in answers], np.int16),
            no=np.array([no for _, no in answers], np.int16),
            questions=np.ones(size, np.int16),
            words=np.ones(size, np.int32),
            tie=np.array(range(size) if ties is None else ties, np.uint64),
            starts=np.cumsum([0, *map(len, keywords)]),
            keywords=np.array([k for held in keywords for k in sorted(held)], np.int16),
            opening=np.zeros(size, np.int32),
            openings=("is",),
        )

    return make
