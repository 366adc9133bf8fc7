"""SVIT's raw format: what is written is the published form, and other forms are explained."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.instructions.raw import RawPicture, read_raw, write_raw

ROW = {
    "image_id": 2331819,
    "conversations": [
        {"content": [{"from": "user", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
    ],
}
PICTURE = RawPicture(2331819, ((Turn("human", "Why?"), Turn("gpt", "So.")),))


def test_the_published_form_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "conversation.json"
    assert write_raw(path, [PICTURE, PICTURE]) == 2
    assert json.loads(path.read_text()) == [ROW, ROW]
    assert list(read_raw(path)) == [PICTURE, PICTURE]
    assert write_raw(path, []) == 0
    assert list(read_raw(path)) == []


def test_an_image_id_may_be_a_string(tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text(json.dumps([{**ROW, "image_id": "2331819"}]))
    assert list(read_raw(tmp_path / "raw.json")) == [PICTURE]


@pytest.mark.parametrize(
    "row",
    [
        7,
        {"conversations": []},
        {"image_id": None, "conversations": []},
        {"image_id": 1},
        {"image_id": 1, "conversations": [{"content": []}]},
        {"image_id": 1, "conversations": [[]]},
        {"image_id": 1, "conversations": [{"content": [{"from": "user", "value": "Why?"}]}]},
        {"image_id": 1, "conversations": [{"content": [{"from": "human", "value": "Why?"}] * 2}]},
        {"image_id": 1, "conversations": [{"content": [{"from": "user", "value": 3}] * 2}]},
    ],
)
def test_rows_of_another_form_are_named(row: Any, tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([ROW, row]))
    with pytest.raises(BadRecordError, match=r"raw\.json row 2: malformed_row: "):
        list(read_raw(path))
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    assert list(read_raw(path, quarantine)) == [PICTURE]
    assert quarantine.counts() == {"malformed_row": 1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "hold a JSON list"),
        ('[{"image_id": 1, "conv', "not valid JSON"),
        ("{}", "hold a JSON list"),
    ],
)
def test_broken_files_are_explained(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text(text)
    with pytest.raises(UserError, match=complaint):
        list(read_raw(tmp_path / "raw.json"))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        list(read_raw(tmp_path / "raw.json"))
