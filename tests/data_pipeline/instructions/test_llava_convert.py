"""The five published rules of the LLaVA-1.5 format, and the choices on top of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.annotations.scene import Scene, write_scenes
from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import KINDS
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS, ConvertReport, convert
from data_pipeline.instructions.raw import RawPicture, write_raw

SIGN, CLOCK = "[0.147, 0.022, 0.258, 0.325]", "[0.526, 0.152, 0.625, 0.717]"
# 800x600: pixels 13 and 195 of 600 move down by 100 and are divided by 800.
SIGN_ON_SQUARE, CLOCK_ON_SQUARE = "[0.147, 0.141, 0.258, 0.369]", "[0.526, 0.239, 0.625, 0.662]"


def pair(question: str, answer: str) -> tuple[Turn, Turn]:
    return Turn("human", question), Turn("gpt", answer)


WHICH = pair(
    f"Which is higher, the <st>clock<ed> {CLOCK} or the <st>sign<ed> {SIGN}?",
    f"The <st>sign<ed> {SIGN} is higher than the <st>clock<ed> {CLOCK}.",
)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_scenes(
        tmp_path / "scenes.jsonl",
        [Scene(i, f"VG_100K/{i}.jpg", 800, 600) for i in range(1, 41)],
    )
    return tmp_path / "scenes.jsonl"


def run(
    tmp_path: Path, scenes: Path, raw: dict[str, list[RawPicture]], **choices: Any
) -> tuple[ConvertReport, list[dict[str, Any]]]:
    for kind, pictures in raw.items():
        write_raw(tmp_path / "raw" / f"{kind}.json", pictures)
    out = tmp_path / "llava.json"
    report = convert(tmp_path / "raw", scenes, out, **{"kinds": tuple(raw), **choices})
    return report, json.loads(out.read_text())


def texts(row: dict[str, Any]) -> list[str]:
    return [turn["value"] for turn in row["conversations"]]


def test_a_referring_row_follows_the_five_rules(tmp_path: Path, scenes: Path) -> None:
    raw = {"referring_qa": [RawPicture(1, (WHICH,))]}
    report, rows = run(tmp_path, scenes, raw, prefix="vg/")
    (row,) = rows
    assert (row["id"], row["image"]) == ("svit_referring_0", "vg/VG_100K/1.jpg")
    question, answer = texts(row)
    start = f"<image>\nWhich is higher, the clock {CLOCK_ON_SQUARE} or the sign {SIGN_ON_SQUARE}? "
    assert question.startswith(start)
    assert question.removeprefix(start) in BOX_INSTRUCTIONS
    assert answer == f"The sign {SIGN_ON_SQUARE} is higher than the clock {CLOCK_ON_SQUARE}."
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
    assert report == ConvertReport({"referring_qa": 1}, {})


def test_all_three_instructions_are_drawn(tmp_path: Path, scenes: Path) -> None:
    raw = {"referring_qa": [RawPicture(i, (WHICH,)) for i in range(1, 41)]}
    _, rows = run(tmp_path, scenes, raw)
    ends = {texts(row)[0].split("? ", 1)[1] for row in rows}
    assert ends == set(BOX_INSTRUCTIONS)
    assert run(tmp_path, scenes, raw)[1] == rows
    assert run(tmp_path, scenes, raw, seed=1)[1] != rows


def test_kinds_follow_in_order_with_their_ids(tmp_path: Path, scenes: Path) -> None:
    plain = RawPicture(3, (pair("Why?", "So."), pair("What?", "That.")))
    talk = RawPicture(3, ((*plain.dialogues[0], *plain.dialogues[1]),))
    raw = {
        "detail_description": [RawPicture(3, (plain.dialogues[0],))],
        "conversation": [talk],
        "complex_reasoning": [plain],
        "referring_qa": [RawPicture(3, (WHICH,))],
    }
    report, rows = run(tmp_path, scenes, raw)
    assert [row["id"] for row in rows] == [
        "svit_conversation_0",
        "svit_complex_0",
        "svit_complex_1",
        "svit_detail_0",
        "svit_referring_0",
    ]
    assert texts(rows[0]) == ["<image>\nWhy?", "So.", "What?", "That."]
    assert list(report.rows) == list(KINDS)


def test_limits_and_merging(tmp_path: Path, scenes: Path) -> None:
    pictures = [
        RawPicture(i, tuple(pair(f"Q{i}.{k}?", f"A{i}.{k}.") for k in range(6)))
        for i in range(1, 11)
    ]
    raw = {"complex_reasoning": pictures}
    report, rows = run(
        tmp_path, scenes, raw, limits={"complex_reasoning": 4}, merge=["complex_reasoning"]
    )
    assert report.rows == {"complex_reasoning": 10}
    kept = set()
    for row in rows:
        assert [t.startswith("<image>\n") for t in texts(row)] == [True] + [False] * 7
        questions = [t.removeprefix("<image>\n") for t in texts(row)[::2]]
        assert questions == sorted(questions)
        assert [q.replace("Q", "A").replace("?", ".") for q in questions] == texts(row)[1::2]
        kept.add(tuple(q.split(".")[1] for q in questions))
    assert len(kept) > 1
    unmerged = run(tmp_path, scenes, raw, limits={"complex_reasoning": 4})[1]
    assert len(unmerged) == 40
    everything = {row["id"]: texts(row) for row in run(tmp_path, scenes, raw)[1]}
    assert all(everything[row["id"]] == texts(row) for row in unmerged)


def test_every_merged_referring_question_has_its_instruction(tmp_path: Path, scenes: Path) -> None:
    raw = {"referring_qa": [RawPicture(1, (WHICH, WHICH))]}
    _, rows = run(tmp_path, scenes, raw, merge=["referring_qa"])
    assert all(text.endswith(BOX_INSTRUCTIONS) for text in texts(rows[0])[::2])


def test_unusable_dialogues_are_listed(tmp_path: Path, scenes: Path) -> None:
    answers = (
        "The <st>clock<ed> [0.5, 0.1, 0.6].",
        "The <st>clock<ed> [5, 1, 6, 7].",
        " <st><ed>",
        f"The <image> {CLOCK}.",
        "It seems like your message is empty.",
        f"The <st>clock<ed> {CLOCK}.",
    )
    raw = {
        "referring_qa": [
            RawPicture(1, tuple(pair("Where?", answer) for answer in answers)),
            RawPicture(99, (WHICH,)),
        ]
    }
    report, rows = run(tmp_path, scenes, raw)
    assert [row["id"] for row in rows] == ["svit_referring_5"]
    assert report.rejections == dict.fromkeys(
        (
            "malformed_box",
            "box_out_of_range",
            "empty_text",
            "image_marker",
            "message_is_empty",
            "no_picture",
        ),
        1,
    )
    listed = (tmp_path / "llava.quarantine.jsonl").read_text().splitlines()
    assert len(listed) == 6
    with pytest.raises(UserError, match="more than the 2 allowed"):
        run(tmp_path, scenes, raw, max_bad=2)


def test_wrong_choices_are_explained(tmp_path: Path, scenes: Path) -> None:
    raw = {"conversation": [RawPicture(1, (WHICH,))]}
    with pytest.raises(UserError, match="cannot be merged"):
        run(tmp_path, scenes, raw, merge=["conversation"])
    with pytest.raises(UserError, match="expected 1 or more"):
        run(tmp_path, scenes, raw, limits={"conversation": 0})
    with pytest.raises(UserError, match="'chat'"):
        run(tmp_path, scenes, raw, limits={"chat": 1})
    with pytest.raises(UserError, match=r"referring_qa\.json"):
        run(tmp_path, scenes, raw, kinds=["referring_qa"])
