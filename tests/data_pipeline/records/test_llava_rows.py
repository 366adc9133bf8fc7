import pytest

from data_pipeline.common.dialogue import Turn, picture_names
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.records.llava_rows import LlavaRow, RejectedRow, parse_row, read_llava_rows

HUMAN = {"from": "human", "value": "<image>\nWhat?"}
GPT = {"from": "gpt", "value": "That."}
PLAIN = {"from": "human", "value": "What?"}


def pictured(*turns, **changes):
    return {"id": "x", "image": "VG_100K/1.jpg", "conversations": list(turns), **changes}


def test_a_row_becomes_a_dialogue():
    parsed = parse_row(pictured(HUMAN, GPT, model="ignored"))
    assert parsed.image == "VG_100K/1.jpg"
    assert parsed.dialogue.id == "x"
    assert parsed.dialogue.turns == (Turn("human", "<image>\nWhat?"), Turn("gpt", "That."))
    assert parse_row(pictured(HUMAN, GPT, id=7)).dialogue.id == "7"


def test_an_opening_turn_by_gpt_is_dropped_as_in_llava():
    parsed = parse_row(pictured(GPT, PLAIN, GPT, image=None))
    assert parsed.dropped_opening
    assert [turn.role for turn in parsed.dialogue.turns] == ["human", "gpt"]


def test_a_marker_without_a_picture_is_ordinary_text_as_in_llava():
    parsed = parse_row(pictured(HUMAN, GPT, HUMAN, GPT, image=None))
    assert parsed.image is None
    assert [turn.text for turn in parsed.dialogue.turns] == ["<image>\nWhat?", "That."] * 2


@pytest.mark.parametrize(
    "questions",
    [
        ("<image>\n<image>\nWhat differs?",),
        ("<image>\nWhat?", "And <image>?"),
        ("Hello.", "Between <image> and <image>?"),
    ],
)
def test_a_list_of_pictures_has_its_markers_in_any_human_turns(questions):
    turns = [turn for q in questions for turn in ({"from": "human", "value": q}, GPT)]
    parsed = parse_row(pictured(*turns, image=["b.jpg", "a.jpg"]))
    assert picture_names(parsed.image) == ("b.jpg", "a.jpg")
    assert tuple(turn.text for turn in parsed.dialogue.turns[::2]) == questions


def test_a_list_of_one_picture_is_that_picture():
    assert parse_row(pictured(HUMAN, GPT, image=["a.jpg"])).image == "a.jpg"


@pytest.mark.parametrize(
    "value,reason",
    [
        (["x"], "is a list, not an object"),
        (pictured(HUMAN, GPT, id=None), "id None; expected a string"),
        (pictured(), 'no list of turns under "conversations"'),
        ({"id": "x"}, 'no list of turns under "conversations"'),
        (pictured(HUMAN, {"from": "user", "value": ""}), "turn 2 from 'user'; expected \"human\""),
        (pictured(HUMAN, {"from": "gpt", "value": None}), 'turn 2 with the "value" None'),
        (pictured(HUMAN, "text"), "turn 2 from None"),
        (pictured(HUMAN), "no human turn that is replied to"),
        (pictured(GPT), "no human turn that is replied to"),
        (pictured(HUMAN, GPT, GPT), "two gpt turns in a row"),
        (pictured(HUMAN, PLAIN, GPT), "two human turns in a row"),
        (pictured(PLAIN, GPT), "has a picture, and 0 <image>"),
        (pictured({**HUMAN, "value": "<image><image>"}, GPT), "has a picture, and 2 <image>"),
        (pictured(HUMAN, GPT, HUMAN, GPT), "a human turn after the first"),
        (pictured(HUMAN, GPT, image=7), "expected a path or a list of paths"),
        (pictured(HUMAN, GPT, image=""), "expected a path or a list of paths"),
        (pictured(HUMAN, GPT, image="a.jpg\nb.jpg"), "a path in the images folder"),
        (pictured(HUMAN, GPT, image=[]), "an empty list"),
        (pictured(HUMAN, GPT, image=["a.jpg", None]), "expected a path or a list of paths"),
        (pictured(HUMAN, GPT, HUMAN, GPT, image=["a", "../b"]), "a path in the images folder"),
        (pictured(HUMAN, GPT, image=["a", "b"]), "lists 2 pictures, and has 1 <image> in"),
        (pictured(HUMAN, GPT, HUMAN, GPT, image=["a"]), "lists 1 pictures, and has 2 <image> in"),
        (pictured(PLAIN, {**GPT, "value": "<image>"}, image=["a"]), "and has 0 <image> in"),
        (pictured(HUMAN, GPT, image="/etc/passwd"), "a path in the images folder"),
        (pictured(HUMAN, GPT, image="a/../../b.jpg"), "a path in the images folder"),
    ],
)
def test_a_malformed_row_says_what_is_wrong(value, reason):
    with pytest.raises(BadRecordError) as caught:
        parse_row(value)
    assert reason in str(caught.value)


def test_malformed_rows_are_named_by_their_place(world):
    path = world.write("mixed.json", [pictured(HUMAN, GPT), 5, pictured(HUMAN)])
    good, number, unanswered = read_llava_rows(path)
    assert isinstance(good, LlavaRow)
    assert number == RejectedRow(
        "mixed.json[1]", "bad row: mixed.json[1] is a int, not an object.", "mixed.json"
    )
    assert isinstance(unanswered, RejectedRow)
    assert (unanswered.id, unanswered.image) == ("x", "VG_100K/1.jpg")
    assert unanswered.reason.startswith("bad row: mixed.json[2] ")


@pytest.mark.parametrize(
    "text,problem",
    [
        ('{"id": 1}', "does not hold a JSON list"),
        ("", "does not hold a JSON list"),
        ('[{"id": "x"}, {"id"', "is not valid JSON .*cut off"),
        ("[1] 2", "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_json_list_is_a_user_error(tmp_path, text, problem):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(UserError, match=problem) as caught:
        list(read_llava_rows(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_absent_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.json"):
        list(read_llava_rows(tmp_path / "none.json"))
