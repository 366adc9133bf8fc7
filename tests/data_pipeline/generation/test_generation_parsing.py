"""Responses as models write them, each reason to reject one, and what must not be rejected."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from responses import (
    CONVERSATION,
    CONVERSATIONS,
    DESCRIPTION,
    DETAIL_DESCRIPTION,
    PAIRS,
    QUESTION_ANSWER,
)

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.parsing import Parsed, parse_response

PLACED = "The <st>dog<ed> [0.1, 0.2, 0.3, 0.4] is left of the <st>men<ed> [0.5, 0.1, 0.6, 0.9]."


def texts(parsed: Parsed) -> list[tuple[str, ...]]:
    return [tuple(turn.text for turn in item) for item in parsed.items]


def codes(parsed: Parsed) -> list[str]:
    return [rejection.reason.split(":")[0] for rejection in parsed.rejections]


@pytest.mark.parametrize("family", QUESTION_ANSWER)
def test_the_layouts_of_question_and_answer(family: str) -> None:
    parsed = parse_response("complex_reasoning", QUESTION_ANSWER[family])
    assert texts(parsed) == list(PAIRS) and parsed.rejections == ()
    assert {turn.role for item in parsed.items for turn in item[::2]} == {"human"}
    assert parsed.notes == ("wrong_count: 2 pairs, 15 were asked for",)


@pytest.mark.parametrize("family", CONVERSATION)
def test_the_layouts_of_conversations(family: str) -> None:
    parsed = parse_response("conversation", CONVERSATION[family])
    assert texts(parsed) == list(CONVERSATIONS) and parsed.rejections == ()
    assert parsed.notes == (
        "wrong_count: 2 conversations, 3 were asked for",
        "wrong_count: 2 pairs, 5 were asked for",
        "wrong_count: 1 pairs, 5 were asked for",
    )


@pytest.mark.parametrize("family", DETAIL_DESCRIPTION)
def test_a_description_is_the_reply_alone(family: str) -> None:
    parsed = parse_response("detail_description", DETAIL_DESCRIPTION[family])
    assert parsed == Parsed(((Turn("gpt", DESCRIPTION),),), ())


def test_the_right_count_is_not_noted() -> None:
    pairs = "".join(f"Question: Why {k}?\nAnswer: So {k}.\n" for k in range(15))
    assert parse_response("complex_reasoning", pairs).notes == ()
    topic = "Topic: x\n" + "User: Why?\nGPT: So.\n" * 5
    assert parse_response("conversation", topic * 3).notes == ()
    assert parse_response("conversation", topic * 4).notes == (
        "wrong_count: 4 conversations, 3 were asked for",
    )


def test_a_bad_pair_costs_only_itself() -> None:
    text = (
        "Topic: rain\nUser: Is it wet?\nGPT: Yes.\nUser: Alone?\nUser: Why?\nGPT:\n"
        "User: How?\nGPT: As the description says, wet.\nUser: And then?"
    )
    parsed = parse_response("conversation", text)
    assert texts(parsed) == [("Is it wet?", "Yes.")]
    assert sorted(codes(parsed)) == ["empty_text", "mentions_source", *["unpaired_turn"] * 2]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_response"),
        ("  \n\t", "empty_response"),
        ("<think>Nothing to say.</think>\n", "empty_response"),
        ("<think>Let me see. Question: what", "truncated"),
        ("It seems like your message is empty. What is it about?", "message_is_empty"),
        ("It looks like your message was blank. How can I help?", "message_is_empty"),
        ("You haven't provided any captions or objects yet.", "message_is_empty"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I\u2019m sorry, I can\u2019t assist with this request.", "refusal"),
        ("I cannot provide questions about people in this image.", "refusal"),
        ("As a text-based AI, I have no eyes.", "refusal"),
        ("Unfortunately, I am unable to see the image.", "refusal"),
        (
            "问题\uff1a为什么？\n回答\uff1a下雨了。",
            "not_english",
        ),
        (
            "Pregunta: ¿Por qué llueve en la calle?\nRespuesta: Es el otoño.",
            "not_english",
        ),
        ("The picture shows a street.", "no_pairs"),
        ('[{"question": "Why?", "answer": "So."}]', "no_pairs"),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "detail_description"])
def test_useless_responses_say_why(kind: str, text: str, code: str) -> None:
    with pytest.raises(BadRecordError, match=f"^{code}: "):
        parse_response(kind, text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("  \n", "empty_response"),
        ("It seems like your message is empty.", "message_is_empty"),
        ("I'm sorry, but I can't describe people.", "refusal"),
        ("As an AI language model, I see a street with two people and a bus.", "refusal"),
        ("Das Bild zeigt eine Straße und der Himmel ist grau.", "not_english"),
        ("L'image montre une rue avec des gens et le ciel est gris.", "not_english"),
        (
            "Это улица и автобус.",
            "not_english",
        ),
        ("...", "empty_text"),
        ("The captions say that it rains.", "mentions_source"),
        ("A dog lies at [0.1, 0.2, 0.3, 0.4].", "mentions_source"),
        ("A dog lies at [120, 40, 60, 80].", "mentions_source"),
        ("A <st>dog<ed> lies there.", "mentions_source"),
        ("A wet street with two people and a bus that waits behind the", "truncated"),
    ],
)
def test_useless_descriptions_say_why(text: str, code: str) -> None:
    try:
        parsed = parse_response("detail_description", text)
    except BadRecordError as error:
        assert str(error).split(":")[0] == code
    else:
        assert parsed.items == () and codes(parsed) == [code]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (PLACED, None),
        ("There are two <st>men<ed> [0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.7, 0.4].", None),
        ("The <st>dog<ed>[0, 0.0, 1, 1.0] fills the image.", None),
        ("Yes.", "missing_box"),
        ("The <st>dog<ed> sleeps.", "missing_box"),
        ("The <st>dog<ed> (0.1, 0.2, 0.3, 0.4) sleeps.", "missing_box"),
        ("The <st>dog [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The <st>dog</st> [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The <st><ed> [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The dog [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The <st>dog<ed> [0.1, 0.2, 0.3] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [0.1, 0.2, 0.3, 0.4, 0.5] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [x1, y1, x2, y2] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [0.1, 0.2, 0.3, 0.4 sleeps.", "malformed_box"),
        ("The <st>dog<ed> [0.1 0.2 0.3 0.4] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [10, 20, 30, 40] sleeps.", "box_out_of_range"),
        ("The <st>dog<ed> [-0.1, 0.2, 0.3, 0.4] sleeps.", "box_out_of_range"),
        ("The <st>dog<ed> [0.3, 0.2, 0.1, 0.4] sleeps.", "box_out_of_range"),
        (f"By its bounding box, {PLACED}", "mentions_source"),
        (f"Das ist ein Hund und eine Katze: {PLACED}", "not_english"),
    ],
)
def test_boxes_of_referring_answers(answer: str, code: str | None) -> None:
    parsed = parse_response("referring_qa", f"Question: Where is it?\nAnswer: {answer}")
    assert len(parsed.items) == (code is None)
    assert codes(parsed) == ([code] if code else [])


def test_boxes_of_referring_questions() -> None:
    for question in ("Is the <st>dog<ed> awake?", "Is the <st>dog<ed> [2, 0, 3, 1] awake?"):
        parsed = parse_response("referring_qa", f"Question: {question}\nAnswer: {PLACED}")
        assert parsed.items == () and len(parsed.rejections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "Based on the provided description, it rains.",
        "According to the captions, it rains.",
        "As described in the image captions, it rains.",
        "The annotations do not mention rain.",
        "The image description says that it rains.",
        "From the given information, it rains.",
        "The information provided suggests rain.",
        "In the region descriptions, it rains.",
        "The list of objects has an umbrella.",
        "The bounding-box of the dog is small.",
        "The coordinates indicate that it is on the left.",
        "It is at [0.1, 0.2, 0.3, 0.4].",
    ],
)
def test_answers_must_not_name_their_source(answer: str) -> None:
    parsed = parse_response("complex_reasoning", f"Question: Why?\nAnswer: {answer}")
    assert parsed.items == () and codes(parsed) == ["mentions_source"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is on the sign?", "The sign gives a description of the route."),
        ("What is on the poster?", "The poster has a caption in red."),
        ("Is there a cat?", "I can't see any cat in the image, so there is none."),
        ("I'm sorry, what is in the box? I can't identify it.", "The box holds a cake."),
        ("What is going on?", "Based on the image, a game is about to start."),
        ("What does the information board help with?", "It provides details about the trains."),
        ("What does the shop sign say?", "It says 'Café de la Paix' in gold letters."),
        ("Which city is it?", "Los Angeles: El Segundo is on the sign."),
        ("What does the sign say?", "北京路"),
        ("What is the man given?", "He is given a ticket by the guard."),
        ("Why?", "As an aid to the blind, the curb is yellow."),
        ("Where to go?", "If you want to stay dry, go inside.\n\nIf you need more light, wait."),
        ("How many?", "2"),
        ("Which regions are dirty?", "The lower regions of the wall are dirty."),
    ],
)
def test_what_must_not_be_rejected(question: str, answer: str) -> None:
    parsed = parse_response("complex_reasoning", f"Question: {question}\nAnswer: {answer}")
    assert texts(parsed) == [(question, answer)] and parsed.rejections == ()


def test_the_rows_that_svit_released_pass() -> None:
    question = (
        "Which object is located higher in the image, the <st>clock<ed> [0.526, 0.152, 0.625, "
        "0.717] or the <st>sign<ed> [0.147, 0.022, 0.258, 0.325]?"
    )
    answer = (
        "The <st>sign<ed> [0.147, 0.022, 0.258, 0.325] is located higher in the image compared to "
        "the <st>clock<ed> [0.526, 0.152, 0.625, 0.717]."
    )
    parsed = parse_response("referring_qa", f"Question: {question}\nAnswer: {answer}")
    assert texts(parsed) == [(question, answer)]
    # SVIT kept this one, though its prompt asks for no plain questions about colour.
    colour = "What color is the shirt of the man who's holding his chin?"
    parsed = parse_response("complex_reasoning", f"Question: {colour}\nAnswer: It is white.")
    assert texts(parsed) == [(colour, "It is white.")]


WHOLE = "Question: Why?\nAnswer: It rains.\nQuestion: How?\nAnswer: It pours.\n"


@pytest.mark.parametrize(
    ("text", "cut_off", "kept", "rejected"),
    [
        (WHOLE, False, 2, []),
        (WHOLE, True, 1, ["truncated"]),
        (WHOLE + "Question: Where?\nAnswer: In the mid", False, 2, ["truncated"]),
        (WHOLE + "Question: Where?\nAnswer: In the mid", True, 2, ["truncated"]),
        (WHOLE + "Question: Where would the m", False, 2, ["unpaired_turn"]),
        (WHOLE + "Question: Where would the m", True, 2, ["truncated"]),
        (WHOLE + "Question: Where?\nAnswer:", False, 2, ["empty_text"]),
        (WHOLE + 'Question: Where?\nAnswer: On the sign "Exit."', False, 3, []),
        ("Question: Why?\nAnswer: Rain\nQuestion: How?\nAnswer: It pours", False, 2, []),
        ("Question: Why?\nAnswer: Rain", False, 1, []),
        (
            "Question: Why?\nAnswer: It is raining, the street is wet and the",
            False,
            0,
            ["truncated"],
        ),
    ],
)
def test_answers_that_break_off(text: str, cut_off: bool, kept: int, rejected: list[str]) -> None:
    parsed = parse_response("complex_reasoning", text, cut_off)
    assert (len(parsed.items), codes(parsed)) == (kept, rejected)


def test_a_question_is_kept_once() -> None:
    parsed = parse_response("complex_reasoning", "Question: Why?\nAnswer: A.\n" * 2)
    assert len(parsed.items) == 1 and codes(parsed) == ["duplicate_question"]


PIECES = st.sampled_from(
    [
        *("Question: ", "Answer: ", "User: ", "GPT: ", "Topic: ", "**Question 1**", "### Answer"),
        *("Conversation 2", "1. ", "**", "\n", "\n\n", "---", "```", "<think>", "</think>", " "),
        *("Why?", "It rains.", "a dog", "I'm sorry", "the captions say", "<st>dog<ed>", "<st>"),
        *("[0.1, 0.2, 0.3, 0.4]", "[1, 2", "下雨", "der die und das", "\r\n", "\u2028"),
    ]
)


RESPONSES = st.lists(PIECES, max_size=40).map("".join) | st.text()


@settings(max_examples=400, deadline=None)
@given(RESPONSES, st.sampled_from(KINDS), st.booleans())
def test_no_text_crashes_the_parser(text: str, kind: str, cut_off: bool) -> None:
    try:
        parsed = parse_response(kind, text, cut_off)
    except BadRecordError as error:
        assert ":" in str(error)
        return
    for item in parsed.items:
        assert [turn.role for turn in item[-2:]] in (["human", "gpt"], ["gpt"])
        assert all(turn.text.strip() for turn in item)
    assert all(rejection.reason.count(":") for rejection in parsed.rejections)


QUESTIONS = ("Why?", "Is the dog awake?", "", "Is it [0.1, 0.2, 0.3, 0.4]?", "为什么街道是湿的？")
ANSWERS = ("It rains.", "", "The captions say so.", "I'm sorry, no.", PLACED, "It is ra")
TURNS = st.tuples(
    st.sampled_from(QUESTIONS), st.sampled_from(ANSWERS), st.sampled_from(["qa", "q", "a"])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TURNS, min_size=1), st.sampled_from([k for k in KINDS if "_des" not in k]))
def test_nothing_found_is_lost(turns: list[tuple[str, str, str]], kind: str) -> None:
    """Every pair and every lone turn that was written is accepted or rejected."""
    lines, sides = [], ""
    for question, answer, which in turns:
        if "q" in which:
            lines.append(f"User: {question}")
        if "a" in which:
            lines.append(f"GPT: {answer}")
        sides += which
    pairs = sides.count("qa")
    found = pairs + len(sides.replace("qa", ""))
    try:
        parsed = parse_response(kind, "\n".join(lines))
    except BadRecordError as error:
        assert str(error).startswith(("no_pairs", "refusal", "not_english"))
        assert pairs == 0
        return
    accepted = sum(len(item) // 2 for item in parsed.items)
    assert accepted + len(parsed.rejections) == found
    assert accepted <= pairs


@pytest.mark.parametrize(
    "piece", ["*", "[", "Question: ", "as a ", " \n", "<st>", "from the ", "a: ", "? ", "**A** "]
)
def test_degenerate_responses_take_no_time(piece: str) -> None:
    text = f"Question: Why?\nAnswer: {piece * (20_000 // len(piece))}"
    start = time.perf_counter()
    for kind in KINDS:
        with contextlib.suppress(BadRecordError):
            parse_response(kind, text)
    assert time.perf_counter() - start < 5
