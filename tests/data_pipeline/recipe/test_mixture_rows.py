"""Rows with their places, against the standard library reading the whole file."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.recipe import mixture_rows
from data_pipeline.recipe.mixture_rows import placed_rows, read_row


def random_value(rng: random.Random, depth: int = 0) -> Any:
    pick = rng.randrange(7 if depth < 3 else 4)
    if pick == 0:
        return rng.choice([None, True, 7, -1.5e-3, 12345678901234567890])
    if pick < 4:
        return "".join(rng.choice('ab"\\[]{},:é漢😀\n ') for _ in range(rng.randrange(30)))
    if pick < 6:
        return {f"k{n}": random_value(rng, depth + 1) for n in range(rng.randrange(4))}
    return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("style", [{"indent": 2}, {"ensure_ascii": False}, {}])
def test_all_rows_and_their_bytes(
    tmp_path: Path, chunk: int, style: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_rows, "_CHUNK", chunk)
    rng = random.Random(chunk)
    for size in (0, 1, 40):
        values = [random_value(rng) for _ in range(size)]
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(values, **style) + "\n")
        rows = list(placed_rows(path))
        assert [row.value for row in rows] == values
        data = path.read_bytes()
        assert [json.loads(data[r.offset : r.offset + r.length]) for r in rows] == values
        with path.open("rb") as file:
            backwards = [read_row(file, row.offset, row.length) for row in rows[::-1]]
        assert backwards == values[::-1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        b'[{"a": 1}',
        b'[{"a": 1},',
        b'[{"a": 1},]',
        b'[{"a": 1} {"a": 2}]',
        b'[{"a": "cut',
        b'[{"a": 1}, oops]',
        b'["\xff"]',
        b"[" * 100_000,
    ],
)
def test_broken_files_are_explained(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "rows.json").write_bytes(data)
    with pytest.raises(UserError, match="not valid JSON after"):
        list(placed_rows(tmp_path / "rows.json"))


def test_other_files_are_explained(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="does not hold a JSON list"):
        list(placed_rows(tmp_path / "rows.json"))
    with pytest.raises(UserError, match="there is no file"):
        list(placed_rows(tmp_path / "absent.json"))


def test_a_row_that_never_ends_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture_rows, "_CHUNK", 1000)
    monkeypatch.setattr(mixture_rows, "_LONGEST_ROW", 10_000)
    (tmp_path / "rows.json").write_text('["' + "a" * 10**6 + '"]')
    with pytest.raises(UserError, match="after 0 rows"):
        list(placed_rows(tmp_path / "rows.json"))
