"""What may be wrong with a dialogue of the released data, each finding as "code: detail"."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipeline.common.boxes import find_boxes
from data_pipeline.common.dialogue import IMAGE_MARKER, Role, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.generation.checks import box_fault, source_mention
from data_pipeline.generation.kinds import (
    COMPLEX_REASONING,
    CONVERSATION,
    KINDS,
    REFERRING_QA,
)

EMPTY_DESCRIPTIONS = frozenset(
    {
        30,
        4417,
        1159649,
        1591845,
        2316987,
        2319201,
        2319806,
        2327174,
        2342212,
        2343061,
        2349999,
        2360367,
        2378561,
        2382059,
        2382113,
        2385150,
        2394393,
        2397078,
        2402123,
        2403887,
        2415254,
    }
)
"""The images whose released description says that the message is empty (SVIT's issue 5)."""

REMARKS = {
    "short_dialogue": "a conversation with fewer than --min-pairs questions",
    "mentions_source": "gives a description, an annotation or a bounding box as the source",
    "duplicate": "asks what an earlier dialogue of the same kind and picture asks",
    "plain_question": "a reasoning question about a mere colour, number or name",
    "coordinates": "boxes outside the referring kind",
    "no_box": "a referring answer that points at nothing",
    "long_answer": "a conversation's answer of more than 50 words",
}
"""Findings that are counted and dropped by choice; all others are always dropped."""

SHORTEST_QUESTION = 4
LONGEST_ANSWER = 50

_PLAIN = re.compile(
    r"(?:what|which)(?: is| are|'s)? (?:the )?colou?rs?\b|how many\b|what (?:kind|type|sort) of\b"
    r"|what is the name\b",
    re.IGNORECASE,
)


def read_turns(content: Any, roles: Mapping[str, Role]) -> tuple[Turn, ...]:
    """The turns of a conversation as it stands in a file; `roles` are the names it may use.

    Raises BadRecordError: `malformed_conversation`, `unknown_role`, `unpaired_turn`.
    """
    if not isinstance(content, list) or not content:
        raise BadRecordError("malformed_conversation: there is no list of turns.")
    turns = []
    for place, turn in enumerate(content):
        text = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(text, str):
            raise BadRecordError(f"malformed_conversation: turn {place + 1} has no text.")
        name = str(turn.get("from"))
        if name not in roles:
            raise BadRecordError(
                f"unknown_role: turn {place + 1} is from {name!r}, expected {' or '.join(roles)}."
            )
        turns.append(Turn(roles[name], text))
    for place, found in enumerate(turns):
        if found.role != ("gpt" if place % 2 else "human"):
            raise BadRecordError(f"unpaired_turn: turn {place + 1} is another one by {found.role}.")
    if len(turns) % 2:
        raise BadRecordError("unpaired_turn: the last question has no answer.")
    return tuple(turns)


def defects(kind: str, turns: Sequence[Turn]) -> Iterator[str]:
    """What makes a dialogue useless: `empty_text`, `short_question`, `message_is_empty`,
    `image_marker`, and of referring ones `malformed_box`, `box_out_of_range`.

    Short answers are none of these: "No." is one. Of a dialogue that is of no kind of SVIT's, an
    empty text alone is looked for.
    """
    for turn in turns:
        text = turn.text.strip()
        if not re.search(r"\w" if kind in KINDS else ".", text):
            yield f"empty_text: a turn by {turn.role} without words: {text[:20]!r}"
        if kind not in KINDS:
            continue
        if turn.role == "human" and len(text) < SHORTEST_QUESTION:
            yield f"short_question: {text!r} has fewer than {SHORTEST_QUESTION} characters"
        if turn.role == "gpt" and "message is empty" in text.lower():
            yield f"message_is_empty: the teacher had seen no scene: {text[:60]!r}"
        if IMAGE_MARKER in text:
            yield f"image_marker: the text holds {IMAGE_MARKER} itself"
        if kind == REFERRING_QA:
            fault = box_fault(text)
            if fault is not None:
                yield fault


def remarks(kind: str, turns: Sequence[Turn], min_pairs: int) -> Iterator[str]:
    """What goes against SVIT's prompts and may be wanted all the same (see REMARKS)."""
    pairs = len(turns) // 2
    if kind == CONVERSATION and pairs < min_pairs:
        yield f"short_dialogue: {pairs} questions, fewer than {min_pairs}"
    for turn in turns:
        mention = source_mention(turn.text)
        if mention is not None:
            yield f"mentions_source: {mention!r}"
        if kind != REFERRING_QA and find_boxes(turn.text):
            yield "coordinates: boxes that only the referring kind may hold"
        if turn.role == "human" and kind == COMPLEX_REASONING and _PLAIN.match(turn.text.strip()):
            yield f"plain_question: {turn.text.strip()[:60]!r}"
        if turn.role == "gpt" and kind == REFERRING_QA and not find_boxes(turn.text):
            yield f"no_box: {turn.text.strip()[:60]!r}"
        if turn.role == "gpt" and kind == CONVERSATION:
            words = len(turn.text.split())
            if words > LONGEST_ANSWER:
                yield f"long_answer: {words} words"
