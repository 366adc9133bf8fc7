"""Responses as models really write them, and each reason to reject one."""

import pytest

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.generation.parsing import Parsed, parse_response

TWO_PAIRS = (
    (Turn("human", "Why is it wet?"), Turn("gpt", "It rained.")),
    (Turn("human", "What now?"), Turn("gpt", "Wait\n\nand see.")),
)
PLACED = "The <st>dog<ed> [0.1, 0.2, 0.3, 0.4] is left of the <st>men<ed> [0.5, 0.1, 0.6, 0.9]"


@pytest.mark.parametrize(
    "text",
    [
        "Question: Why is it wet?\nAnswer: It rained.\n"
        "Question: What now?\nAnswer: Wait\n\nand see.",
        "Sure, here you are:\n\n1. Question: Why is it wet?\n   Answer: It rained.\n\n"
        "2. Question: What now?\n   Answer: Wait\n\nand see.\n---\n",
        "**Question 1:** Why is it wet?\n**Answer 1:** It rained.\n"
        "**Question 2:** What now?\n**Answer 2:** Wait\n\nand see.",
        "1. **Question: Why is it wet?**\n   **Answer:** It rained.\n"
        "2. **Question: What now?**\n   **Answer:** Wait\n\nand see.",
        "### Question 1\uff1a Why is it wet?\nanswer: It rained.\n"
        "- Question 2. What now?\n- Answer: Wait\n\nand see.",
        "Q1: Why is it wet?\nA1: It rained.\n(2) Q: What now?\nA: Wait\n\nand see.",
    ],
)
def test_the_layouts_of_question_and_answer(text: str) -> None:
    assert parse_response("complex_reasoning", text) == Parsed(TWO_PAIRS, ())


@pytest.mark.parametrize(
    "heads",
    [
        ("Topic: rain", "Topic: plans"),
        ("**Topic 1:** rain", "**Topic 2:** plans"),
        ("Conversation 1\nTopic: rain", "Conversation 2\nTopic: plans"),
        ("## Conversation 1: rain", "## Conversation 2: plans"),
    ],
)
def test_conversations_are_cut_at_their_headings(heads: tuple[str, str]) -> None:
    text = (
        f"{heads[0]}\nUser: Is it wet?\nGPT: Yes.\nUser: Why?\nGPT: It rained.\n\n"
        f"{heads[1]}\n**User:** What now?\n**GPT:** Wait."
    )
    texts = [[turn.text for turn in item] for item in parse_response("conversation", text).items]
    assert texts == [["Is it wet?", "Yes.", "Why?", "It rained."], ["What now?", "Wait."]]


def test_a_bad_pair_costs_only_itself() -> None:
    text = (
        "Topic: rain\nUser: Is it wet?\nGPT: Yes.\nUser: Alone?\nUser: Why?\nGPT:\n"
        "User: How?\nGPT: As the description says, wet.\nUser: And then?"
    )
    parsed = parse_response("conversation", text)
    assert [turn.text for turn in parsed.items[0]] == ["Is it wet?", "Yes."]
    codes = sorted(rejection.reason.split(":")[0] for rejection in parsed.rejections)
    assert codes == ["empty_text", "mentions_source", "unpaired_turn", "unpaired_turn"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("  \n", "empty_response"),
        ("It seems like your message is empty. What is it about?", "message_is_empty"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("The picture shows a street.", "no_pairs"),
    ],
)
def test_useless_responses_say_why(text: str, code: str) -> None:
    with pytest.raises(BadRecordError, match=f"^{code}: "):
        parse_response("complex_reasoning", text)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (PLACED, None),
        ("There are two <st>men<ed> [0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.7, 0.4].", None),
        ("Yes.", "missing_box"),
        ("The <st>dog<ed> sleeps.", "missing_box"),
        ("The <st>dog [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The <st><ed> [0.1, 0.2, 0.3, 0.4] sleeps.", "missing_box"),
        ("The <st>dog<ed> [0.1, 0.2, 0.3] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [x1, y1, x2, y2] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [0.1, 0.2, 0.3, 0.4 sleeps.", "malformed_box"),
        ("The <st>dog<ed> [0.1 0.2 0.3 0.4] sleeps.", "malformed_box"),
        ("The <st>dog<ed> [10, 20, 30, 40] sleeps.", "box_out_of_range"),
        ("The <st>dog<ed> [-0.1, 0.2, 0.3, 0.4] sleeps.", "box_out_of_range"),
        ("The <st>dog<ed> [0.3, 0.2, 0.1, 0.4] sleeps.", "box_out_of_range"),
        (f"By its bounding box, {PLACED}", "mentions_source"),
    ],
)
def test_boxes_of_referring_answers(answer: str, code: str | None) -> None:
    parsed = parse_response("referring_qa", f"Question: Where is it?\nAnswer: {answer}")
    assert len(parsed.items) == (code is None)
    assert [rejection.reason.split(":")[0] for rejection in parsed.rejections] == (
        [code] if code else []
    )


@pytest.mark.parametrize(
    ("answer", "usable"),
    [
        ("Based on the provided description, it rains.", False),
        ("According to the captions, it rains.", False),
        ("The annotations do not mention rain.", False),
        ("It is at [0.1, 0.2, 0.3, 0.4].", False),
        ("As an AI language model, I see no rain.", False),
        ("The sign gives a description of the route.", True),
        ("The poster has a caption in red.", True),
    ],
)
def test_answers_must_not_name_their_source(answer: str, usable: bool) -> None:
    parsed = parse_response("complex_reasoning", f"Question: Why?\nAnswer: {answer}")
    assert (len(parsed.items), len(parsed.rejections)) == ((1, 0) if usable else (0, 1))


def test_a_question_is_kept_once() -> None:
    parsed = parse_response("complex_reasoning", "Question: Why?\nAnswer: A.\n" * 2)
    assert len(parsed.items) == 1
    assert parsed.rejections[0].reason.startswith("duplicate_question")


def test_a_description_is_the_reply_alone() -> None:
    parsed = parse_response("detail_description", "**Description:** A wet street.\n\nIt rains.")
    assert parsed.items == ((Turn("gpt", "A wet street.\n\nIt rains."),),)
    with pytest.raises(BadRecordError, match="message_is_empty"):
        parse_response("detail_description", "It seems like your message is empty.")
    told = parse_response("detail_description", "The captions say that it rains.")
    assert told.items == () and told.rejections[0].reason.startswith("mentions_source")
