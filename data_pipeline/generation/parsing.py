"""Teachers' free text becomes turns; what can't be used is rejected with a reason.

A reason reads "code: detail"; the codes are what reports count.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from data_pipeline.common.dialogue import Role, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.generation.checks import (
    answer_fault,
    coordinates_fault,
    excerpt,
    pair_fault,
    response_fault,
    text_fault,
)
from data_pipeline.generation.kinds import (
    CONVERSATION,
    CONVERSATIONS_ASKED,
    DETAIL_DESCRIPTION,
    PAIRS_ASKED,
)

_ASKING = r"user|human|question|q"
_ANSWERING = r"gpt(?:-?\d\w*)?|chatgpt|assistant|ai(?:\ assistant)?|answer|a"
_BOUNDARY = r"topic|conversation|dialogue"
_DECORATION = " \t#>*_-"
_LABEL = re.compile(
    rf"""(?:\(?\d{{1,2}}[.):]+[\s*_]*)?                     # "1." or "(1)"
        (?:(?P<asking>{_ASKING})|(?P<answering>{_ANSWERING})|(?P<boundary>{_BOUNDARY}))
        (?:[\s*_]*[:：]|[\s*_\#]*\d{{1,2}}[*_\s]*[.):：])[*_\s]*(?P<text>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_LONE_LABEL = re.compile(
    rf"""(?:\#+\s*|[*_]{{2}}|(?=\w+\s*\d))                 # a title, bold, or at least a number
        (?:(?P<asking>{_ASKING})|(?P<answering>{_ANSWERING}))\s*\#?(?:\d{{1,2}})?[\s*_]*$""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADING = re.compile(
    rf"^[\s#>*_(-]*(?:{_BOUNDARY})\s*#?(?:\d{{1,2}}|one|two|three|i{{1,3}})\b.*$", re.IGNORECASE
)
_RULE = re.compile(r"^\s*(?:[-*_=]{3,}|`{3}\w*)\s*$")
_ANSWER_ON_THE_LINE = re.compile(
    r"(?<=[?.!])([*_]*)\s+(?=[*_]*(?:answer|gpt|assistant|a)[*_]*:)", re.IGNORECASE
)
_FAREWELL = re.compile(
    r"^[\s*_(]*(?:(?:please )?let me know|(?:i )?hope (?:this|these|that)\b[^.!]*\bhelp"
    r"|feel free to (?:ask|let|reach|use|adjust|modify)\b|would you like me to"
    r"|(?:these|the above) (?:questions|conversations|pairs)"
    r"|if you(?:['’]d| would| need| want)\b[^.!]*"
    r"\b(?:questions|conversations|examples|changes|adjust\w*|assistance|anything else)\b)",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^(?:sure|certainly|of course|absolutely|here(?:['’]s| is))\b[^\n]*:[*_\s]*\n", re.IGNORECASE
)
_DESCRIPTION_LABEL = re.compile(
    r"^[\s#*_]*(?:detailed )?description(?: of the (?:image|picture))?"
    r"[*_\s]*[:：][*_\s]*",
    re.IGNORECASE,
)
_LIST_POINT = re.compile(r"\s*(?:[-*•+]|\d{1,2}[.)])\s")
_WORDS_OF_A_FRAGMENT = 8


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A part of a response that was left out, and why."""

    reason: str
    text: str


@dataclasses.dataclass(frozen=True)
class Parsed:
    """`items` are the usable dialogues: whole conversations, or single question-answer pairs.

    A detailed description's only item is the reply alone: its question is not the teacher's.
    `notes` are reasons ("wrong_count: ...") that cost nothing: what was found is used.
    """

    items: tuple[tuple[Turn, ...], ...]
    rejections: tuple[Rejection, ...]
    notes: tuple[str, ...] = ()


def parse_response(kind: str, text: str, cut_off: bool = False) -> Parsed:
    """The usable dialogues of one response and the rejected parts.

    `cut_off` says that the endpoint stopped the answer at its length limit; the last part is then
    `truncated`, as it is where it breaks off without a full stop. Raises BadRecordError where
    nothing in the response has the asked form: `empty_response`, `message_is_empty` (the teacher
    says that it got nothing), `refusal`, `not_english`, `truncated` (inside its thinking),
    `no_pairs`. Parts are rejected as `unpaired_turn`, `empty_text`, `refusal`, `message_is_empty`,
    `mentions_source`, `not_english`, `truncated`, `duplicate_question`, `missing_box`,
    `malformed_box`, `box_out_of_range`.
    """
    if text.lstrip().startswith("<think>") and "</think>" not in text:
        raise BadRecordError("truncated: the response ends inside the teacher's thinking.")
    text = _without_farewell(text.rpartition("</think>")[2])
    if not text.strip():
        raise BadRecordError("empty_response: the teacher answered nothing.")
    if kind == DETAIL_DESCRIPTION:
        return _parse_description(text, cut_off)
    rejections: list[Rejection] = []
    blocks = [block for block in _blocks(text) if block]
    dialogues = [list(_pairs(block, rejections)) for block in blocks]
    if not any(dialogues) and not any(r.text for r in rejections):
        missing = "truncated" if cut_off else "no_pairs"
        raise BadRecordError(
            response_fault(text) or f"{missing}: no question with an answer in {excerpt(text)!r}."
        )
    if cut_off and blocks[-1][-1][0] == "human":
        rejections[-1] = Rejection("truncated: ends inside a question", rejections[-1].text)
    broken = _broken_off(dialogues, cut_off) if blocks[-1][-1][0] == "gpt" else None
    items: list[tuple[Turn, ...]] = []
    asked: set[str] = set()
    for dialogue in dialogues:
        kept: list[Turn] = []
        for pair in dialogue:
            question, answer = pair
            reason = pair_fault(kind, question, answer)
            if reason is None and pair is broken:
                reason = f"truncated: ends with {answer[-40:]!r}"
            if reason is None and kind != CONVERSATION and question in asked:
                reason = "duplicate_question: asked before in the same response"
            if reason is not None:
                rejections.append(Rejection(reason, f"{question}\n{answer}"))
                continue
            asked.add(question)
            kept += [Turn("human", question), Turn("gpt", answer)]
        if kind == CONVERSATION:
            items += [tuple(kept)] if kept else []
        else:
            items += [tuple(kept[start : start + 2]) for start in range(0, len(kept), 2)]
    return Parsed(tuple(items), tuple(rejections), tuple(_count_notes(kind, dialogues)))


def _parse_description(text: str, cut_off: bool) -> Parsed:
    reply = _GREETING.sub("", text.strip(), count=1)
    reply = _DESCRIPTION_LABEL.sub("", reply, count=1)
    reply = _clean(line for line in reply.splitlines() if not _RULE.match(line))
    fault = response_fault(reply)
    if fault is not None:
        raise BadRecordError(fault)
    reason = text_fault(reply) or answer_fault(reply) or coordinates_fault(reply)
    if reason is None and (cut_off or _is_fragment(reply)):
        reason = f"truncated: ends with {reply[-40:]!r}"
    if reason is not None:
        return Parsed((), (Rejection(reason, reply),))
    return Parsed(((Turn("gpt", reply),),), ())


def _blocks(text: str) -> Iterator[list[tuple[Role, str]]]:
    """The labelled texts, cut into blocks at headings; what precedes a label is dropped."""
    block: list[tuple[Role, list[str]]] = []
    open_label = False
    for line in _ANSWER_ON_THE_LINE.sub(r"\1\n", text).splitlines():
        label = _LABEL.match(line.lstrip(_DECORATION))
        match = label or _LONE_LABEL.match(line.strip())
        if _HEADING.match(line) or (label and label["boundary"]):
            yield [(role, _clean(lines)) for role, lines in block]
            block, open_label = [], False
        elif match:
            role: Role = "human" if match["asking"] else "gpt"
            block.append((role, [label["text"] if label else ""]))
            open_label = True
        elif open_label and not _RULE.match(line):
            block[-1][1].append(line)
    yield [(role, _clean(lines)) for role, lines in block]


def _pairs(
    block: Iterable[tuple[Role, str]], rejections: list[Rejection]
) -> Iterator[tuple[str, str]]:
    question: str | None = None
    for role, text in block:
        if role == "human":
            if question is not None:
                rejections.append(Rejection("unpaired_turn: a question without answer", question))
            question = text
        elif question is None:
            rejections.append(Rejection("unpaired_turn: an answer without question", text))
        else:
            yield question, text
            question = None
    if question is not None:
        rejections.append(Rejection("unpaired_turn: a question without answer", question))


def _without_farewell(text: str) -> str:
    """The text without a last paragraph that speaks to whoever asked, as chat models add it."""
    *paragraphs, last = re.split(r"\n(?:\s*|`{3})\n", text.strip())
    return "\n\n".join(paragraphs) if paragraphs and _FAREWELL.match(last) else text


def _clean(lines: Iterable[str]) -> str:
    """The lines as one text, without half of a bold mark."""
    text = "\n".join(line.strip() for line in lines).strip()
    text = re.sub(r"\n{3,}", "\n\n", text)
    if text.count("**") % 2 == 0:
        return text
    # Bold that was opened before the label closes at the end, or after its first words.
    return text.removesuffix("**").rstrip() if text.endswith("**") else text.replace("**", "", 1)


def _broken_off(
    dialogues: Sequence[Sequence[tuple[str, str]]], cut_off: bool
) -> tuple[str, str] | None:
    """The last pair, where its answer was not finished.

    Without the endpoint's word for it, that is told by the missing full stop where the other
    answers have theirs: some teachers write short answers without one.
    """
    pairs = [pair for dialogue in dialogues for pair in dialogue]
    if not pairs:
        return None
    *others, last = pairs
    stopped = all(_is_stopped(answer) for _, answer in others)
    if cut_off or (_is_fragment(last[1]) if not others else stopped and not _is_stopped(last[1])):
        return last
    return None


def _is_stopped(text: str) -> bool:
    """Whether the text ends as texts do; points of a list need no full stop."""
    if _LIST_POINT.match(text[text.rfind("\n") + 1 :]):
        return True
    return text.rstrip("*_\"'”’») \n").endswith((".", "!", "?", "]", "…", ":", ";"))


def _is_fragment(text: str) -> bool:
    return not _is_stopped(text) and len(text.split()) > _WORDS_OF_A_FRAGMENT


def _count_notes(kind: str, dialogues: Sequence[Sequence[tuple[str, str]]]) -> Iterator[str]:
    found = [len(dialogue) for dialogue in dialogues if dialogue]
    if kind == CONVERSATION:
        if len(found) != CONVERSATIONS_ASKED:
            yield f"wrong_count: {len(found)} conversations, {CONVERSATIONS_ASKED} were asked for"
    else:
        found = [sum(found)]
    for count in found:
        if count != PAIRS_ASKED[kind]:
            yield f"wrong_count: {count} pairs, {PAIRS_ASKED[kind]} were asked for"
