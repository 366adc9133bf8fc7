"""Teachers' free text becomes turns; what can't be used is rejected with a reason.

A reason reads "code: detail"; the codes are what reports count.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator

from data_pipeline.common.boxes import find_boxes
from data_pipeline.common.dialogue import Role, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.generation.kinds import CONVERSATION, DETAIL_DESCRIPTION, REFERRING_QA

_LABEL = re.compile(
    r"""^[\s#>*_-]*(?:\(?\d{1,2}[.):]+)?[\s*_]*            # bullets, "1." or "(1)", opening bold
        (topic|conversation|dialogue|user|human|gpt|assistant|question|answer|q|a)
        (?:[\s*_]*[:：]|[\s*_#]*\d{1,2}[*_\s]*[.):：])[*_\s]*(.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADING = re.compile(
    r"^[\s#>*_(-]*(?:conversation|dialogue|topic)\s*#?\d{1,2}\b.*$", re.IGNORECASE
)
_RULE = re.compile(r"^\s*[-*_=]{3,}\s*$")
_DESCRIPTION_LABEL = re.compile(
    r"^[\s#*_]*(?:detailed )?description(?: of the (?:image|picture))?[*_\s]*[:：][*_\s]*",
    re.IGNORECASE,
)
_BOUNDARIES = {"topic", "conversation", "dialogue"}
_ASKING = {"user", "human", "question", "q"}

_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|sorry,|i apologi[sz]e|i (?:cannot|can['’]t|can not|am unable))"
    r"|\bas an? (?:ai|language model)\b",
    re.IGNORECASE,
)
_NOTED = r"(?:descriptions?|captions?|annotations?|coordinates)"
_SOURCE = re.compile(
    r"\bbounding[ -]?box"
    r"|\b(?:based on|according to|as per|from|in|given|using|by)(?:\s+(?:the|this|your))?"
    rf"(?:\s+(?:provided|given|image|picture|region|object|input))*\s+{_NOTED}\b"
    rf"|\b{_NOTED}\s+(?:you\s+)?(?:provided|given|mentions?|states?|says?|indicates?|suggests?"
    r"|provides?|describes?|lists?|do(?:es)? not|do(?:es)?n['’]t)\b",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\[[^\]\[]*\]?")
_MARK = re.compile(r"<st>([^<>]*)<ed>((?:\s*,?\s*\[[^\]\[]*\])*)")


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A part of a response that was left out, and why."""

    reason: str
    text: str


@dataclasses.dataclass(frozen=True)
class Parsed:
    """`items` are the usable dialogues: whole conversations, or single question-answer pairs.

    A detailed description's only item is the reply alone: its question is not the teacher's.
    """

    items: tuple[tuple[Turn, ...], ...]
    rejections: tuple[Rejection, ...]


def parse_response(kind: str, text: str) -> Parsed:
    """The usable dialogues of one response and the rejected parts.

    Raises BadRecordError where nothing in the response has the asked form: `empty_response`,
    `message_is_empty` (the teacher says that it got nothing), `refusal`, `no_pairs`. Parts are
    rejected as `unpaired_turn`, `empty_text`, `refusal`, `mentions_source`, `duplicate_question`,
    `missing_box`, `malformed_box`, `box_out_of_range`.
    """
    if not text.strip():
        raise BadRecordError("empty_response: the teacher answered nothing.")
    if kind == DETAIL_DESCRIPTION:
        return _parse_description(text)
    rejections: list[Rejection] = []
    dialogues = [list(_pairs(block, rejections)) for block in _blocks(text)]
    if not any(dialogues) and not any(r.text for r in rejections):
        _raise_unusable(text)
        raise BadRecordError(f"no_pairs: no question with an answer in {_excerpt(text)!r}.")
    items: list[tuple[Turn, ...]] = []
    asked: set[str] = set()
    for dialogue in dialogues:
        kept: list[Turn] = []
        for question, answer in dialogue:
            reason = _pair_fault(kind, question, answer)
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
    return Parsed(tuple(items), tuple(rejections))


def _parse_description(text: str) -> Parsed:
    reply = _DESCRIPTION_LABEL.sub("", text.strip(), count=1).strip()
    _raise_unusable(reply)
    reason = _text_fault(reply)
    if reason is not None:
        return Parsed((), (Rejection(reason, reply),))
    return Parsed(((Turn("gpt", reply),),), ())


def _raise_unusable(text: str) -> None:
    if "message is empty" in text.lower():
        raise BadRecordError(f"message_is_empty: the teacher saw no scene: {_excerpt(text)!r}.")
    if _REFUSAL.search(text):
        raise BadRecordError(f"refusal: the teacher declined: {_excerpt(text)!r}.")


def _blocks(text: str) -> Iterator[list[tuple[Role, str]]]:
    """The labelled texts, cut into blocks at headings; what precedes a label is dropped."""
    block: list[tuple[Role, list[str]]] = []
    open_label = False
    for line in text.splitlines():
        match = _LABEL.match(line)
        if _HEADING.match(line) or (match and match[1].lower() in _BOUNDARIES):
            yield [(role, _clean(lines)) for role, lines in block]
            block, open_label = [], False
        elif match:
            block.append(("human" if match[1].lower() in _ASKING else "gpt", [match[2]]))
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


def _clean(lines: list[str]) -> str:
    text = "\n".join(line.strip() for line in lines).strip()
    text = re.sub(r"\n{3,}", "\n\n", text)
    if text.count("**") % 2 == 0:
        return text
    # Bold that was opened before the label closes at the end, or after its first words.
    return text.removesuffix("**").rstrip() if text.endswith("**") else text.replace("**", "", 1)


def _pair_fault(kind: str, question: str, answer: str) -> str | None:
    fault = _text_fault(question) or _text_fault(answer)
    if fault is not None:
        return fault
    if kind == REFERRING_QA:
        return (
            box_fault(question)
            or box_fault(answer)
            or _mention_fault(question, needed=False)
            or _mention_fault(answer, needed=True)
        )
    if find_boxes(question) or find_boxes(answer):
        return "mentions_source: gives coordinates that only the referring task may hold"
    return None


def _text_fault(text: str) -> str | None:
    if not re.search(r"\w", text):
        return "empty_text: a question or an answer without words"
    if _REFUSAL.search(text):
        return f"refusal: {_excerpt(text)!r}"
    source = source_mention(text)
    if source is not None:
        return f"mentions_source: {source!r}"
    return None


def source_mention(text: str) -> str | None:
    """The words that give a description or a box as the source, as no answer should; None if none
    do."""
    match = _SOURCE.search(text)
    return None if match is None else match[0]


def box_fault(text: str) -> str | None:
    """What is wrong with the bracketed boxes of a text, as a reason; None where all are good."""
    for bracket in _BRACKETS.findall(text):
        numbers = re.findall(r"-?\d*\.?\d+", bracket)
        well_formed = re.fullmatch(r"\[[\d\s.,-]*\]", bracket) and len(numbers) == 4
        boxes = find_boxes(bracket)
        if well_formed and any(not 0 <= float(number) <= 1 for number in numbers):
            return f"box_out_of_range: {bracket} leaves 0..1"
        if not well_formed or not boxes:
            return f"malformed_box: {bracket} is not [x1, y1, x2, y2]"
        if boxes[0].x1 >= boxes[0].x2 or boxes[0].y1 >= boxes[0].y2:
            return f"box_out_of_range: {bracket} has no area"
    return None


def _mention_fault(text: str, needed: bool) -> str | None:
    marks = list(_MARK.finditer(text))
    if text.count("<st>") != len(marks) or text.count("<ed>") != len(marks):
        return "missing_box: <st> and <ed> do not pair up"
    for mark in marks:
        if not mark[1].strip() or not find_boxes(mark[2]):
            return f"missing_box: {mark[0].strip()} carries no name or no box"
    if needed and not marks:
        return "missing_box: the answer points at no object"
    return None


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."
