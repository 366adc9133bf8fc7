"""Known defects of the released data: each is found, named and listed, and nothing else goes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.instructions.clean import Rules, clean_llava, clean_raw, read_ids

SHARED = Path(__file__).parents[4] / "shared"
BOX = "[0.1, 0.2, 0.3, 0.4]"
KINDS = ("conversation", "complex_reasoning", "detail_description", "referring_qa")


def conversation(*texts: str, roles: tuple[str, ...] = ("user", "gpt")) -> dict[str, Any]:
    return {
        "content": [{"from": roles[n % len(roles)], "value": text} for n, text in enumerate(texts)]
    }


def talk(pairs: int) -> dict[str, Any]:
    return conversation(*(f"What is {n}?" if n % 2 == 0 else "No." for n in range(2 * pairs)))


def run(
    tmp_path: Path, kind: str, *items: Any, image_id: int = 1, **rules: Any
) -> tuple[Any, list[Any]]:
    """The report, and what is left of one picture's conversations."""
    (tmp_path / "raw").mkdir(exist_ok=True)
    (tmp_path / "raw" / f"{kind}.json").write_text(
        json.dumps([{"image_id": image_id, "conversations": list(items)}])
    )
    report = clean_raw(tmp_path / "raw", tmp_path / "out", Rules(**rules))
    rows = json.loads((tmp_path / "out" / f"{kind}.json").read_text())
    assert json.loads((tmp_path / "out/report.json").read_text())["dropped"] == report.dropped
    return report, [item for row in rows for item in row["conversations"]]


DEFECTS: list[tuple[str, str, Any]] = [
    ("complex_reasoning", "malformed_conversation", {"content": []}),
    ("complex_reasoning", "malformed_conversation", "Why?"),
    ("complex_reasoning", "malformed_conversation", {"content": [{"from": "user", "value": 3}]}),
    ("complex_reasoning", "unknown_role", conversation("Why so?", "So.", roles=("human", "gpt"))),
    ("complex_reasoning", "unknown_role", conversation("Why so?", "So.", roles=("user", ""))),
    ("conversation", "unpaired_turn", conversation("Why so?", "So.", "And now?")),
    ("conversation", "unpaired_turn", conversation("So.", "Why so?", roles=("gpt", "user"))),
    ("conversation", "unpaired_turn", conversation("Why so?", "And now?", roles=("user",))),
    ("conversation", "empty_text", conversation("Why so?", " ... ")),
    ("conversation", "short_question", conversation("Why", "So it is.")),
    (
        "detail_description",
        "message_is_empty",
        conversation("Describe it.", "It seems like your message is empty. Could you resend it?"),
    ),
    ("complex_reasoning", "image_marker", conversation("Why is <image> so?", "So.")),
    ("referring_qa", "malformed_box", conversation("Where is it?", "Here: [0.1, 0.2, 0.3].")),
    ("referring_qa", "malformed_box", conversation("Where is it?", "Here: [0.1.2, 0.2, 0.3, 1].")),
    ("referring_qa", "box_out_of_range", conversation("Where is it?", "[0.1, 0.2, 1.3, 0.4]")),
    ("referring_qa", "box_out_of_range", conversation("Where is it?", "[0.3, 0.2, 0.3, 0.4]")),
    ("referring_qa", "box_out_of_range", conversation("Where is it?", "[0.1, 0.5, 0.3, 0.4]")),
]


@pytest.mark.parametrize(("kind", "code", "bad"), DEFECTS)
def test_a_defect_is_dropped_and_listed(tmp_path: Path, kind: str, code: str, bad: Any) -> None:
    good = conversation("Where is the bus?", f"The bus {BOX}." if kind == "referring_qa" else "No.")
    report, left = run(tmp_path, kind, good, bad)
    assert left == [good]
    assert report.dropped == {code: 1}
    assert report.kept == {kind: 1}
    (listed,) = map(json.loads, (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    assert listed["id"] == f"{kind}/1/1" and listed["reason"].startswith(f"{code}: ")


REMARKS: list[tuple[str, str, Any]] = [
    ("conversation", "short_dialogue", talk(4)),
    (
        "complex_reasoning",
        "mentions_source",
        conversation("Is it warm today?", "Based on the provided description, it is."),
    ),
    ("complex_reasoning", "plain_question", conversation("What color is the shirt?", "Red.")),
    ("complex_reasoning", "coordinates", conversation("Is it warm?", f"The sun {BOX} shines.")),
    ("referring_qa", "no_box", conversation(f"Where is <st>it<ed> {BOX}?", "On the left.")),
    ("conversation", "long_answer", talk(4)),
    ("complex_reasoning", "duplicate", conversation("Why is it  late?", "It just is.")),
]


@pytest.mark.parametrize(("kind", "code", "item"), REMARKS)
def test_a_remark_is_counted_and_dropped_by_choice(
    tmp_path: Path, kind: str, code: str, item: Any
) -> None:
    items = [item]
    if code == "long_answer":
        items = [conversation(*(["How many are there?", "word " * 51] * 5))]
    if code == "duplicate":
        items = [item, conversation("why is it  late?", "Another answer.")]
    report, left = run(tmp_path, kind, *items)
    assert left == items
    assert report.remarks == {code: 1}
    report, left = run(tmp_path, kind, *items, drop=[code])
    assert left == items[: len(items) - 1]
    assert report.dropped == {code: 1}


def test_of_two_that_ask_the_same_the_good_one_stays(tmp_path: Path) -> None:
    mention = conversation("Is it warm?", "Based on the description, it is.")
    good = conversation("Is it warm?", "It is.")
    report, left = run(
        tmp_path, "complex_reasoning", mention, good, good, drop=["duplicate", "mentions_source"]
    )
    assert left == [good]
    assert report.dropped == {"mentions_source": 1, "duplicate": 1}


def test_the_number_of_pairs_is_a_choice(tmp_path: Path) -> None:
    assert run(tmp_path, "conversation", talk(5))[0].remarks == {}
    assert run(tmp_path, "conversation", talk(5), min_pairs=6)[0].remarks == {"short_dialogue": 1}


def listed_ids() -> list[int]:
    """The ids of the fact sheet where it is present, else those that issue 5 names first."""
    sheet = SHARED / "reference/svit.md"
    if not sheet.exists():
        return [30, 4417, 2415254]
    found = re.search(r"image ids ([\d, ]+) \[I#5\]", sheet.read_text())
    assert found is not None
    return [int(text) for text in found[1].split(",")]


def test_the_listed_descriptions(tmp_path: Path) -> None:
    ids = listed_ids()
    empty = conversation("Describe it.", "It seems like your message is empty.")
    good = conversation("Describe it.", "A quiet street.")
    rows = [{"image_id": n, "conversations": [empty]} for n in ids[1:]]
    rows += [{"image_id": n, "conversations": [good]} for n in (ids[0], 5)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/detail_description.json").write_text(json.dumps(rows))
    report = clean_raw(tmp_path / "raw", tmp_path / "out", Rules())
    assert report.dropped == {"message_is_empty": len(ids) - 1}
    assert (report.listed_empty, report.listed_described) == (len(ids) - 1, 1)
    assert report.kept == {"detail_description": 2}


def test_ids_are_excluded_and_unknown_pictures_dropped(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = [{"image_id": n, "conversations": [talk(5), talk(6)]} for n in (8, 9, 10)]
    (tmp_path / "raw/conversation.json").write_text(json.dumps(rows))
    ids = tmp_path / "ids.txt"
    ids.write_text("8\n2417983\n")
    rules = Rules(exclude=read_ids(ids), known={8: 0, 9: 0})
    report = clean_raw(tmp_path / "raw", tmp_path / "out", rules)
    assert report.excluded == {"pictures": 1, "dialogues": 2}
    assert report.dropped == {"no_picture": 2}
    assert json.loads((tmp_path / "out/conversation.json").read_text()) == [rows[1]]
    ids.write_text("8\n9.jpg\n")
    with pytest.raises(UserError, match=r"'9\.jpg'"):
        read_ids(ids)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared list is not here")
def test_the_published_list_of_test_images() -> None:
    ids = read_ids(SHARED / "data/svit_test_image_ids.txt")
    assert len(ids) == 10_808
    assert (min(ids), max(ids)) == (8, 2_417_983)
    assert {30, 2349999, 2403887} <= ids


def test_a_joined_file_keeps_its_rows(tmp_path: Path) -> None:
    point = conversation("Where is it?", f"The <st>bus<ed> {BOX}.")
    bad = conversation("Where is it?", "The <st>bus<ed> [0.1, 0.2].")
    row = {"image_id": 3, "conversations": [talk(5), bad, point], "topic": "a street"}
    (tmp_path / "svit.json").write_text(json.dumps([row, {"image_id": 4, "conversations": [bad]}]))
    report = clean_raw(tmp_path / "svit.json", tmp_path / "out", Rules())
    assert json.loads((tmp_path / "out/svit.json").read_text()) == [
        row | {"conversations": [talk(5), point]}
    ]
    assert report.kept == {"conversation": 1, "referring_qa": 1}


def llava(row_id: Any, image: str | None, *texts: str) -> dict[str, Any]:
    turns = conversation(*texts, roles=("human", "gpt"))["content"]
    return {"id": row_id, "conversations": turns} | ({} if image is None else {"image": image})


def test_llava_rows(tmp_path: Path) -> None:
    where = "<image>\nWhere is it? Locate the objects with their coordinates."
    good = [
        llava("svit_complex_0", "vg/VG_100K/1.jpg", "<image>\nWhy so?", "So."),
        llava(9, "vg/VG_100K/1.jpg", where, f"Here {BOX}."),
        llava("sharegpt", None, "Hi", "arr[0]", "?"),
        llava("vqa", "coco/train2017/000000000001.jpg", "<image>\nQ?", "?"),
    ]
    bad = [
        llava("svit_complex_1", "vg/VG_100K/1.jpg", "<image>\nWhy <image>?", "So."),
        llava("svit_complex_2", "vg/VG_100K/7.jpg", "<image>\nWhy so?", "So."),
        llava(10, "vg/VG_100K/1.jpg", where, "Here [0.1, 0.2]."),
        llava("svit_complex_3", "vg/VG_100K/1.jpg", "<image>\nWhy so?"),
        7,
        llava("svit_detail_4", "vg/VG_100K/8.jpg", "<image>\nDescribe it.", "A street."),
    ]
    (tmp_path / "rows.json").write_text(json.dumps(good + bad))
    entry = {"url": "a/VG_100K/1.jpg", "width": 8, "height": 6}
    data = [entry | {"image_id": n, "url": f"a/VG_100K/{n}.jpg"} for n in (1, 8)]
    (tmp_path / "image_data.json").write_text(json.dumps(data))
    rules = Rules(exclude={8}, known={1, 8})
    out = tmp_path / "clean.json"
    with pytest.raises(UserError, match="--image-data"):
        clean_llava(tmp_path / "rows.json", out, rules)
    report = clean_llava(tmp_path / "rows.json", out, rules, tmp_path / "image_data.json", "vg/")
    assert json.loads(out.read_text()) == good
    assert report.dropped == {
        "image_marker": 1,
        "no_picture": 1,
        "malformed_box": 1,
        "unpaired_turn": 1,
        "malformed_row": 1,
    }
    assert report.kept == {"complex_reasoning": 1, "referring_qa": 1, "other": 2}
    assert report.excluded == {"pictures": 1, "dialogues": 1}


def test_wrong_choices_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose from: short_dialogue"):
        Rules(drop=["short"])
    with pytest.raises(UserError, match="holds none of the raw files"):
        clean_raw(tmp_path, tmp_path / "out", Rules())
    (tmp_path / "conversation.json").write_text("[]")
    with pytest.raises(UserError, match="choose another"):
        clean_raw(tmp_path, tmp_path, Rules())
    bad = [{"image_id": n, "conversations": [{"content": []}]} for n in range(3)]
    (tmp_path / "conversation.json").write_text(json.dumps(bad))
    with pytest.raises(UserError, match="more than the 1 allowed"):
        clean_raw(tmp_path, tmp_path / "out", Rules(), max_bad=1)
    assert not (tmp_path / "out/conversation.json").exists()
