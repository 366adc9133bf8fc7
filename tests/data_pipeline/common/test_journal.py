"""The journal: torn files, calls in flight, one writer at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.common.journal import Journal


def test_cut_anywhere_it_holds_the_whole_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    rows = {"a": "é\n" * 3, "b": None, "c": [1]}
    with Journal(path, "me") as journal:
        for key, value in rows.items():
            journal.add(key, value)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = max(0, whole[:size].count(b"\n") - 1)
        with Journal(path, "me") as journal:
            assert len(journal) == kept
            for key in list(rows)[:kept]:
                assert journal[key] == rows[key]
            journal.add("d", size)
            assert journal["d"] == size
        expected = [lines[0], *lines[1 : 1 + kept]]
        assert path.read_bytes().splitlines(keepends=True)[:-1] == expected


def test_reading_and_writing_mix(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", "me") as journal:
        for number in range(200):
            journal.add(str(number), "x" * number)
            assert journal[str(number // 2)] == "x" * (number // 2)
        journal.add("7", "another")
        assert journal["7"] == "another" and len(journal) == 200
    with Journal(tmp_path / "j.jsonl", "me") as journal:
        assert journal["7"] == "another" and journal["199"] == "x" * 199


def test_damage_in_the_middle_and_other_inputs_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, "me") as journal:
        journal.add("a", 1)
        journal.add("b", 2)
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"a"', b'"a'))
    with pytest.raises(UserError, match="line 2, is damaged"):
        Journal(path, "me")
    path.write_bytes(good)
    with pytest.raises(UserError, match="belongs to other inputs"):
        Journal(path, "you")
    assert path.read_bytes() == good


def test_in_flight_is_what_the_last_process_left_open(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, "me") as journal:
        for key in "abcd":
            journal.begin(key, ord(key))
        journal.add("a", "answer")
        journal.end("b", 5)
    with Journal(path, "me") as journal:
        assert journal.in_flight == {"c", "d"}
        journal.begin("c")
    seen: list[dict[str, object]] = []
    with Journal(path, "me", seen.append) as journal:
        # d was lost by the first process, of which the second has told.
        assert journal.in_flight == {"c"}
    shown = [{k: v for k, v in line.items() if k != "process"} for line in seen]
    assert shown == [
        *({"begin": key, "value": ord(key)} for key in "abcd"),
        {"key": "a", "value": "answer"},
        {"end": "b", "value": 5},
        {"begin": "c", "value": None},
    ]
    with Journal(path, "me") as journal:
        assert journal.in_flight == {"c"}


def test_nothing_is_written_before_there_is_something_to_write(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "j.jsonl", "me") as journal:
        assert "a" not in journal and len(journal) == 0
    assert not (tmp_path / "new").exists()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", "me") as journal:
        journal.add("a", 1)
        with pytest.raises(UserError, match="in use by another process"):
            Journal(tmp_path / "j.jsonl", "me")
    with Journal(tmp_path / "j.jsonl", "me") as journal:
        assert journal["a"] == 1


def test_what_was_added_has_left_the_process(tmp_path: Path) -> None:
    program = """
import os, sys
from data_pipeline.common.journal import Journal
journal = Journal(sys.argv[1], "me")
journal.add("a", 1)
journal.begin("b")
os._exit(9)  # as after kill -9: nothing is flushed or closed
"""
    path = tmp_path / "j.jsonl"
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == 9
    lines = path.read_text().splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["identity", "key", "begin"]
