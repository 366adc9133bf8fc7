"""First-stage rows from captions, or from regions where there are none."""

import json
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import PixelBox, Region, Scene, write_scenes
from data_pipeline.common.errors import UserError
from data_pipeline.instructions.captions import caption_rows

BOX = PixelBox(0, 0, 9, 9)


def test_rows_from_captions_and_regions(tmp_path: Path) -> None:
    captions = ("a red circle", "A circle and a star.", "a star")
    phrases = ("a red circle", "a blue star", "a star", "a ring")
    write_scenes(
        tmp_path / "scenes.jsonl",
        [
            Scene(1, "VG_100K/1.jpg", 9, 9, captions=captions),
            Scene(2, "VG_100K/2.jpg", 9, 9, regions=tuple(Region(p, BOX) for p in phrases)),
            Scene(3, "VG_100K/3.jpg", 9, 9),
        ],
    )
    out = tmp_path / "pretrain.json"
    count = caption_rows(tmp_path / "scenes.jsonl", out, captions_per_picture=2, prefix="vg/")
    rows = json.loads(out.read_text())
    assert len(rows) == count
    assert [row["id"] for row in rows][:2] == ["caption_1_0", "caption_1_1"]
    assert len({row["id"] for row in rows}) == count
    for row in rows:
        ask, reply = row["conversations"]
        assert ask == {"from": "human", "value": "<image>\nDescribe the image briefly."}
        if row["image"] == "vg/VG_100K/1.jpg":
            assert reply["value"] in {"A red circle.", "A circle and a star.", "A star."}
        else:
            assert row["image"] == "vg/VG_100K/2.jpg"
            first, second, third = reply["value"].removesuffix(".").replace(" and", ",").split(", ")
            assert {first.lower(), second, third} < set(phrases)
    assert len({row["conversations"][1]["value"] for row in rows}) == count
    listed = (tmp_path / "pretrain.quarantine.jsonl").read_text()
    assert json.loads(listed)["id"] == "3" and "no_text" in listed


def test_a_wrong_number_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 or more"):
        caption_rows(tmp_path / "scenes.jsonl", tmp_path / "out.json", captions_per_picture=0)
