"""VQAv2's files become rows of several short questions a picture."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.instructions.vqa import convert_vqa

SUFFIX = "\nAnswer the question using a single word or phrase."


def write(
    folder: Path, questions: list[dict[str, Any]], answers: dict[int, str], **top: str
) -> tuple[Path, Path]:
    (folder / "q.json").write_text(json.dumps({"questions": questions, **top}))
    rows = [{"question_id": n, "multiple_choice_answer": a} for n, a in answers.items()]
    (folder / "a.json").write_text(json.dumps({"annotations": rows}))
    return folder / "q.json", folder / "a.json"


def question(number: int, image: int, **extra: str) -> dict[str, Any]:
    return {"question_id": number, "image_id": image, "question": f"Q{number}?", **extra}


def test_questions_of_a_picture_share_rows(tmp_path: Path) -> None:
    asked = [question(1, 9), question(2, 458752), question(3, 9), question(4, 9)]
    paths = write(tmp_path, asked, {1: "yes", 2: "2", 3: "red", 4: "no"}, data_subtype="train2014")
    assert convert_vqa(*paths, tmp_path / "out.json", "coco/", pairs_per_dialogue=2) == 3
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["id"] for row in rows] == ["vqa_0", "vqa_1", "vqa_2"]
    assert [row["image"] for row in rows] == [
        "coco/COCO_train2014_000000000009.jpg",
        "coco/COCO_train2014_000000000009.jpg",
        "coco/COCO_train2014_000000458752.jpg",
    ]
    assert rows[0]["conversations"] == [
        {"from": "human", "value": f"<image>\nQ1?{SUFFIX}"},
        {"from": "gpt", "value": "yes"},
        {"from": "human", "value": f"Q3?{SUFFIX}"},
        {"from": "gpt", "value": "red"},
    ]
    assert rows[1]["conversations"][0]["value"] == f"<image>\nQ4?{SUFFIX}"


def test_the_suffix_may_stand_once(tmp_path: Path) -> None:
    asked = [question(1, 9, image_file="VG_100K/9.jpg"), question(2, 9, image_file="VG_100K/9.jpg")]
    paths = write(tmp_path, asked, {1: "yes", 2: "no"})
    convert_vqa(*paths, tmp_path / "out.json", suffix_every_turn=False)
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["image"] == "VG_100K/9.jpg"
    assert [turn["value"] for turn in row["conversations"][::2]] == [f"<image>\nQ1?{SUFFIX}", "Q2?"]


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(UserError, match="no answer for question 1"):
        convert_vqa(*write(tmp_path, [question(1, 9)], {2: "x"}, data_subtype="val2014"), out)
    with pytest.raises(UserError, match="neither a data_subtype"):
        convert_vqa(*write(tmp_path, [question(1, 9)], {1: "x"}), out)
    with pytest.raises(UserError, match='row 1, lacks the key "question"'):
        convert_vqa(*write(tmp_path, [{"question_id": 1, "image_id": 2}], {1: "x"}), out)
    questions, answers = write(tmp_path, [question(1, 9)], {1: "x"})
    with pytest.raises(UserError, match='no list under the key "questions"'):
        convert_vqa(answers, answers, out)
    with pytest.raises(UserError, match="1 or more"):
        convert_vqa(questions, answers, out, pairs_per_dialogue=0)
    assert not out.exists()
