"""Sizes from image_data.json, joined raw files, and the way back from LLaVA-1.5's format."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.instructions.llava import ID_STEMS, convert
from data_pipeline.instructions.pictures import Picture, read_pictures
from data_pipeline.instructions.reverse import to_raw

SAMPLE = Path(__file__).parents[4] / "shared/data/visual_genome_sample/image_data.json"
URL = "https://cs.stanford.edu/people/rak248"
IMAGE_DATA = [
    {"image_id": 1, "url": f"{URL}/VG_100K_2/1.jpg", "width": 800, "height": 600},
    {"image_id": 2, "url": f"{URL}/VG_100K/2.jpg", "width": 480, "height": 640},
]
CLOCK, CLOCK_ON_SQUARE = "[0.526, 0.152, 0.625, 0.717]", "[0.526, 0.239, 0.625, 0.662]"


def conversation(*texts: str) -> dict[str, Any]:
    roles = ("user", "gpt")
    return {"content": [{"from": roles[n % 2], "value": text} for n, text in enumerate(texts)]}


TALK = conversation("What is it?", "A street.", "Is it busy?", "No.")
REASON = conversation("Why is it quiet?", "It is early.")
DETAIL = conversation("Describe the image in detail.", "A street with a clock.")
POINT = conversation(f"Where is the <st>clock<ed> {CLOCK}?", f"The <st>clock<ed> {CLOCK} hangs.")
RAW: dict[str, list[dict[str, Any]]] = {
    "conversation": [{"image_id": 1, "conversations": [TALK]}],
    "complex_reasoning": [
        {"image_id": 1, "conversations": [REASON, REASON]},
        {"image_id": 2, "conversations": [REASON]},
    ],
    "detail_description": [{"image_id": 2, "conversations": [DETAIL]}],
    "referring_qa": [{"image_id": 1, "conversations": [POINT]}],
}


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    (tmp_path / "image_data.json").write_text(json.dumps(IMAGE_DATA))
    return tmp_path / "image_data.json"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for kind, rows in RAW.items():
        (tmp_path / "raw" / f"{kind}.json").write_text(json.dumps(rows))
    return tmp_path / "raw"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_sizes_and_folders_of_visual_genome(sizes: Path) -> None:
    assert read_pictures(sizes, "vg/") == {
        1: Picture("vg/VG_100K_2/1.jpg", 800, 600),
        2: Picture("vg/VG_100K/2.jpg", 480, 640),
    }


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared sample is not here")
def test_the_official_file() -> None:
    pictures = read_pictures(SAMPLE)
    assert pictures[1] == Picture("VG_100K_2/1.jpg", 800, 600)
    assert pictures[3] == Picture("VG_100K/3.jpg", 640, 480)
    assert len(pictures) == 5


@pytest.mark.parametrize(
    "change", [{"width": 0}, {"height": "600"}, {"url": "1.jpg"}, {"url": None}, {"image_id": "1"}]
)
def test_a_row_without_a_picture_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "image_data.json").write_text(json.dumps([IMAGE_DATA[0] | change]))
    with pytest.raises(UserError, match="row 1, give no picture"):
        read_pictures(tmp_path / "image_data.json")


def test_a_joined_file_gives_the_same_rows(tmp_path: Path, raw: Path, sizes: Path) -> None:
    apart, together = tmp_path / "apart.json", tmp_path / "together.json"
    convert(raw, sizes, apart, prefix="vg/")
    joined = [
        {"image_id": n, "conversations": [c for kind in RAW for c in by_image(kind, n)]}
        for n in (1, 2)
    ]
    (tmp_path / "svit.json").write_text(json.dumps(joined))
    (tmp_path / "questions.txt").write_text("Describe the image in detail.\n")
    questions = tmp_path / "questions.txt"
    report = convert(
        tmp_path / "svit.json", sizes, together, prefix="vg/", detail_questions=questions
    )
    assert report.rows == {
        "conversation": 1,
        "complex_reasoning": 3,
        "detail_description": 1,
        "referring_qa": 1,
    }
    assert sorted(map(str, read(apart))) == sorted(map(str, read(together)))
    report = convert(tmp_path / "svit.json", sizes, together, kinds=["complex_reasoning"])
    assert report.rows == {"complex_reasoning": 4}


def test_one_file_of_the_four_is_its_kind(tmp_path: Path, raw: Path, sizes: Path) -> None:
    report = convert(raw / "detail_description.json", sizes, tmp_path / "out.json")
    assert report.rows["detail_description"] == 1 and sum(report.rows.values()) == 1


def by_image(kind: str, image_id: int) -> list[dict[str, Any]]:
    return [c for row in RAW[kind] if row["image_id"] == image_id for c in row["conversations"]]


def test_there_and_back(tmp_path: Path, raw: Path, sizes: Path) -> None:
    llava = tmp_path / "llava.json"
    convert(raw, sizes, llava, prefix="vg/", merge=["complex_reasoning"])
    assert CLOCK_ON_SQUARE in llava.read_text()
    report = to_raw(llava, sizes, tmp_path / "back", prefix="vg/")
    assert report.rejections == {}
    for kind, rows in RAW.items():
        text = json.dumps(rows).replace("<st>", "").replace("<ed>", "")
        assert read(tmp_path / "back" / f"{kind}.json") == json.loads(text)


def test_rows_of_other_origin_and_broken_ones(tmp_path: Path, sizes: Path) -> None:
    def row(row_id: Any, image: str | None, *texts: str) -> dict[str, Any]:
        roles = ("human", "gpt")
        turns = [{"from": roles[n % 2], "value": text} for n, text in enumerate(texts)]
        return {"id": row_id, "image": image, "conversations": turns}

    where = "Where? Include the coordinates for each mentioned object."
    rows: list[Any] = [
        row(7, "VG_100K_2/1.jpg", f"{where}\n<image>", f"Here: {CLOCK_ON_SQUARE}."),
        row("a", "VG_100K/2.jpg", "<image>\nWhat?", "That.", "Why?", "So."),
        row("lost", "VG_100K/9.jpg", "<image>\nWhat?", "That."),
        row("text", None, "What?", "That."),
        row("odd", "VG_100K/2.jpg", "<image>\nWhat?"),
        {"id": "bad", "image": "VG_100K/2.jpg", "conversations": [7, 8]},
        "none",
    ]
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    report = to_raw(tmp_path / "llava.json", sizes, tmp_path / "raw")
    assert report.rejections == {"no_picture": 2, "malformed_row": 3}
    assert read(tmp_path / "raw/referring_qa.json") == [
        {"image_id": 1, "conversations": [conversation("Where?", f"Here: {CLOCK}.")]}
    ]
    assert read(tmp_path / "raw/conversation.json") == [
        {"image_id": 2, "conversations": [conversation("What?", "That.", "Why?", "So.")]}
    ]
    assert set(ID_STEMS) == {path.stem for path in (tmp_path / "raw").glob("*.json")}


def test_a_wrong_conversation_costs_no_other(tmp_path: Path, sizes: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = [{"image_id": 1, "conversations": [REASON, {"content": []}, REASON]}]
    (tmp_path / "raw/complex_reasoning.json").write_text(json.dumps(rows))
    out = tmp_path / "out.json"
    report = convert(tmp_path / "raw", sizes, out, kinds=["complex_reasoning"])
    assert report.rows == {"complex_reasoning": 2}
    assert report.rejections == {"malformed_row": 1}
