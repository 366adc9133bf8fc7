"""What is wrong with a question or an answer, as a reason: "code: detail". None: it is usable."""

import re

from data_pipeline.common.boxes import BOX_PATTERN, find_boxes
from data_pipeline.generation.kinds import REFERRING_QA
from data_pipeline.generation.language import language_fault

_EMPTY_MESSAGE = re.compile(
    r"\b(?:message|input|prompt|request)\s+(?:is|was|seems|appears)\s+(?:to\s+(?:be|have\s+been)\s+)?"
    r"(?:empty|blank|incomplete)\b"
    r"|\byou\s*(?:have\s*n[o'’]t|['’]ve\s+not|did\s*n[o'’]t|forgot\s+to)\s*(?:yet\s+)?"
    r"(?:provided?|included?|shared?|given?|attach(?:ed)?)\b",
    re.IGNORECASE,
)
_NOT_ABLE = (
    r"i(?:\s+(?:cannot|can\s+not|can['’]t|am\s+(?:unable|not\s+able)\s+to)"
    r"|['’]m\s+(?:unable|not\s+able)\s+to)"
)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m\s+sorry|i\s+am\s+sorry|sorry,|i\s+apologi[sz]e"
    rf"|{_NOT_ABLE}\s+(?:\w+ly\s+)?(?:help|assist|provide|answer|determine|fulfil|comply|generate"
    r"|create|continue|process|complete|discuss|identify|describe))"
    rf"|\b{_NOT_ABLE}\s+(?:\w+ly\s+)?(?:see|view|access|open|display|analy[sz]e)\s+"
    r"(?:the|this|that|any|your)?\s*(?:actual\s+)?(?:image|picture|photo)",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"\bas\s+an?\s+(?:\w+[ -]){0,3}(?:ai|language\s+model|chatbot)\b", re.IGNORECASE
)

_NOTED = r"(?:descriptions?|captions?|annotations?|coordinates|metadata)"
_GIVEN = r"(?:provided|given|supplied|listed)"
_TOLD = (
    r"(?:mentions?|states?|says?|indicates?|suggests?|provides?|describes?|lists?|shows?|specif(?:y|ies)"
    r"|do(?:es)?\s+not|do(?:es)?n['’]t)"
)
_SOURCE = re.compile(
    r"\bbounding[ -]?box"
    r"|\b(?:based\s+on|according\s+to|as\s+per|from|in|given|using|by)(?:\s+(?:the|this|these|your))?"
    rf"(?:\s+(?:{_GIVEN}|image|picture|scene|text|region|object|input))*\s+{_NOTED}\b"
    rf"|\b{_NOTED}\s+(?:you\s+)?(?:{_GIVEN}|{_TOLD})\b"
    rf"|\b(?:the|this|these)\s+{_GIVEN}\s+"
    r"(?:information|data|details|context|input|text|list|objects|regions|fields)\b"
    rf"|\b(?:information|data|details|context)\s+(?:that\s+(?:was|is|were|are)\s+)?{_GIVEN}\b"
    r"|\b(?:object|region)s?\s+list\b|\blist\s+of\s+(?:objects|regions)\b",
    re.IGNORECASE,
)

_BRACKETS = re.compile(r"\[[^\]\[]*\]?")
_MARK = re.compile(r"<st>([^<>]*)<ed>((?:\s*,?\s*\[[^\]\[]*\])*)")


def response_fault(text: str) -> str | None:
    """Why a whole response holds nothing of what was asked for, where it says so itself."""
    if _EMPTY_MESSAGE.search(text):
        return f"message_is_empty: the teacher saw no scene: {excerpt(text)!r}"
    if _REFUSAL.search(text) or _MACHINE.search(text):
        return f"refusal: the teacher declined: {excerpt(text)!r}"
    return language_fault(text)


def pair_fault(kind: str, question: str, answer: str) -> str | None:
    """The first fault of a question with its answer."""
    fault = (
        text_fault(question)
        or text_fault(answer)
        or answer_fault(answer)
        or language_fault(question)
        or language_fault(answer)
        or language_fault(f"{question} {answer}")
    )
    if fault is not None:
        return fault
    if kind == REFERRING_QA:
        return (
            box_fault(question)
            or box_fault(answer)
            or _mention_fault(question, needed=False)
            or _mention_fault(answer, needed=True)
        )
    return coordinates_fault(question) or coordinates_fault(answer)


def text_fault(text: str) -> str | None:
    """The first fault that any text may have."""
    if not re.search(r"\w", text):
        return "empty_text: a question or an answer without words"
    if _MACHINE.search(text):
        return f"refusal: {excerpt(text)!r}"
    source = source_mention(text)
    if source is not None:
        return f"mentions_source: {source!r}"
    return None


def source_mention(text: str) -> str | None:
    """The words that give a description or a box as the source, as no answer should; None if none
    do."""
    match = _SOURCE.search(text)
    return None if match is None else match[0]


def answer_fault(answer: str) -> str | None:
    """The first fault that only an answer has: a person may well say that they can't see."""
    if _EMPTY_MESSAGE.search(answer):
        return f"message_is_empty: {excerpt(answer)!r}"
    if _REFUSAL.search(answer):
        return f"refusal: {excerpt(answer)!r}"
    return None


def coordinates_fault(text: str) -> str | None:
    """Boxes and object marks where the task has none."""
    if BOX_PATTERN.search(text) or "<st>" in text or "<ed>" in text:
        return "mentions_source: gives coordinates or marks that only the referring task may hold"
    return None


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


def excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."
