import pytest

from data_pipeline.common.dialogue import Turn
from data_pipeline.text.oddities import ODDITIES, find_oddities
from data_pipeline.text.templates import PLAIN, V1


def found(*texts, has_picture=True, template=V1, first="human"):
    roles = ("human", "gpt") if first == "human" else ("gpt", "human")
    turns = [Turn(roles[n % 2], text) for n, text in enumerate(texts)]
    return find_oddities(turns, template, has_picture)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("<image>\nWhat?", "A cat."), set()),
        (("<image>\nWhat?", ""), {"empty_answer"}),
        (("<image>\nWhat?", " "), set()),
        (("<image>\nWhat?", "A cat.", "", "Yes."), {"empty_question"}),
        (("<image>\nWhat?", "A cat.", "Where?"), {"unanswered_question"}),
        (("<image>\nWhat?", "I am ASSISTANT: yes"), {"role_in_text"}),
        (("<image>\nWho is ASSISTANT:", "Me."), {"role_in_text"}),
        (("<image>\nWhat?", "ASSISTANT: a cat."), {"role_in_text"}),
        (("<image>\nWhat?", "MYASSISTANT: a cat."), set()),
        (("<image>\nWhat is </s>?", "An end."), {"special_token_in_text"}),
        (("<image>\nWhat?", "An <image>."), {"marker_in_text"}),
        (("<image>\n<image>\nWhat?", "Two."), {"several_pictures_in_a_turn"}),
        (("<image>\nWhat?", "One.", "<image>\nAnd?", "Two."), set()),
    ],
)
def test_each_oddity_is_found(texts, expected):
    assert found(*texts) == expected
    assert expected <= ODDITIES.keys()


def test_without_a_picture_a_marker_is_text():
    assert found("What?", "A cat.", has_picture=False) == {"text_only"}
    assert found("<image>", "A.", has_picture=False) == {"text_only", "marker_in_text"}


def test_captions_have_no_roles_in_their_text():
    assert found("<image>", "the ASSISTANT: and  : too", template=PLAIN) == set()


def test_an_opening_by_gpt_is_no_question_left_open():
    assert found("Hello.", "What?", "A cat.", first="gpt", has_picture=False) == {"text_only"}
