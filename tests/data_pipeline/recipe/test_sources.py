"""Missing, empty, damaged and renamed pictures of a mixture, each found and none invented."""

import json
from pathlib import Path
from typing import Any

import pytest
from mixture_samples import small_mixture
from PIL import Image

from data_pipeline.common.errors import UserError
from data_pipeline.recipe.mixture_spec import read_mixture
from data_pipeline.recipe.sources import FolderReport, SourcesReport, check_sources


def rows_file(folder: Path, *images: str | None) -> Path:
    rows = [
        {"id": str(n), "conversations": []} | ({} if image is None else {"image": image})
        for n, image in enumerate(images)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "teal").save(root / name)


def faults(report: SourcesReport) -> dict[str, dict[str, int]]:
    kinds = ("missing", "empty", "damaged", "other_name")
    counted = {
        name: {kind: getattr(folder, kind) for kind in kinds if getattr(folder, kind)}
        for name, folder in report.folders.items()
    }
    return {name: found for name, found in counted.items() if found}


def test_faults_are_told_apart(tmp_path: Path) -> None:
    images = tmp_path / "images"
    draw(
        images,
        "coco/train2017/1.jpg",
        "coco/train2017/2.jpg",
        "ocr_vqa/images/a.gif",
        "ocr_vqa/images/b.png",
        "vg/VG_100K_2/9.jpg",
        "own/c.jpg",
    )
    whole = (images / "coco/train2017/1.jpg").read_bytes()
    (images / "coco/train2017/2.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "coco/train2017/3.jpg").write_bytes(b"")
    rows = rows_file(
        tmp_path,
        "coco/train2017/1.jpg",
        "coco/train2017/1.jpg",
        "coco/train2017/2.jpg",
        "coco/train2017/3.jpg",
        "coco/train2017/4.jpg",
        "ocr_vqa/images/a.jpg",
        "ocr_vqa/images/b.jpg",
        "vg/VG_100K/9.jpg",
        "own/c.jpg",
        "own/../../secret.jpg",
        None,
    )
    missing, mended = tmp_path / "missing.jsonl", tmp_path / "mended.json"
    report = check_sources(images, read_mixture(), rows, decode=True, missing=missing, mend=mended)
    assert faults(report) == {
        "coco/train2017": {"missing": 1, "empty": 1, "damaged": 1},
        "ocr_vqa/images": {"other_name": 2},
        "vg/VG_100K": {"other_name": 1},
        "own/../..": {"damaged": 1},
    }
    assert report.folders["coco/train2017"].asked == 4
    assert report.folders["own"] == FolderReport(on_disk=1, expected=None, asked=1)
    assert report.rows_without_picture == 1
    assert "coco/train2017 (3 of 4 pictures)" in report.problems
    listed = {row["image"]: row for row in map(json.loads, missing.read_text().splitlines())}
    assert len(listed) == 7
    assert listed["coco/train2017/4.jpg"]["problem"] == "missing"
    assert listed["coco/train2017/2.jpg"]["problem"].startswith("damaged: ")
    before, after = json.loads(rows.read_text()), json.loads(mended.read_text())
    changed = {b["image"]: a["image"] for b, a in zip(before, after, strict=True) if a != b}
    assert changed == {
        "ocr_vqa/images/a.jpg": "ocr_vqa/images/a.gif",
        "ocr_vqa/images/b.jpg": "ocr_vqa/images/b.png",
        "vg/VG_100K/9.jpg": "vg/VG_100K_2/9.jpg",
    }
    light = check_sources(images, read_mixture(), rows)
    assert faults(light)["coco/train2017"] == {"missing": 1, "empty": 1}
    rest = [row.get("image") for row in after if row.get("image") not in listed]
    again = check_sources(images, read_mixture(), rows_file(tmp_path, *rest), decode=True)
    assert again.problems == "" and faults(again) == {}


def test_mending_is_explained_where_it_is_needed(tmp_path: Path) -> None:
    draw(tmp_path, "ocr_vqa/images/a.gif")
    report = check_sources(tmp_path, read_mixture(), rows_file(tmp_path, "ocr_vqa/images/a.jpg"))
    text = report.text()
    assert "1 under another name" in text
    assert ".gif" in text and "1458" in text and "drive.google.com" in text
    assert "gqa" not in text


def test_downloads_before_there_are_rows(tmp_path: Path) -> None:
    mixture = small_mixture()
    report = check_sources(tmp_path / "images", mixture, home=tmp_path)
    assert "svit_core" in report.problems and "vg/VG_100K_2 (no such folder)" in report.problems
    assert "huggingface.co/datasets/BAAI/SVIT" in report.inputs["svit_core"]
    for name in mixture.folders:
        draw(tmp_path / "images", f"{name}/1.jpg")
    (tmp_path / "SVIT_core_150K.json").write_text("[]")
    (tmp_path / "llava.json").write_text("")
    given: dict[str, Any] = {"llava_mix": tmp_path / "llava.json"}
    report = check_sources(tmp_path / "images", mixture, given=given, home=tmp_path)
    assert report.inputs["svit_core"] == "there" and "is empty" in report.inputs["llava_mix"]
    assert report.problems == "missing or damaged: llava_mix; see the report above."
    parts = "refcoco, a_okvqa, okvqa, vqav2"
    assert f"coco/train2017/ ({parts}): 1 files (about 118287 expected)" in report.text()
    assert "is empty (sharegpt, gqa, ocr_vqa, textcaps, vg, refcoco" in report.text()
    (tmp_path / "llava.json").write_text("[]")
    assert not check_sources(tmp_path / "images", mixture, given=given, home=tmp_path).problems


def test_without_rows_no_picture_can_be_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rows"):
        check_sources(tmp_path, read_mixture(), decode=True)
