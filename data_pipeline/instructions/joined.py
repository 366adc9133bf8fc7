"""The kind of a dialogue by its text alone, for files in which all four kinds are joined."""

from collections.abc import Collection, Iterator, Sequence

from data_pipeline.common.boxes import find_boxes
from data_pipeline.common.dialogue import Turn
from data_pipeline.generation.kinds import (
    COMPLEX_REASONING,
    CONVERSATION,
    DETAIL_DESCRIPTION,
    REFERRING_QA,
)
from data_pipeline.generation.raw_files import RawPicture


def kind_by_text(turns: Sequence[Turn], detail_questions: Collection[str]) -> str:
    """Which of the four kinds a dialogue is.

    Referring, where a turn holds `<st>` or a box; a conversation, where it has more than one
    question; a description, where its question is one of `detail_questions`; else reasoning. So a
    conversation of which one question is left counts as reasoning. Nothing but the id depends on
    it: of the published rules only those for referring questions ask for the kind.
    """
    if any("<st>" in turn.text or find_boxes(turn.text) for turn in turns):
        return REFERRING_QA
    if len(turns) > 2:
        return CONVERSATION
    return DETAIL_DESCRIPTION if turns[0].text.strip() in detail_questions else COMPLEX_REASONING


def by_kind(raw: RawPicture, detail_questions: Collection[str]) -> Iterator[tuple[str, RawPicture]]:
    """A picture's dialogues apart by kind, each kind's in their order."""
    apart: dict[str, list[tuple[Turn, ...]]] = {}
    for turns in raw.dialogues:
        apart.setdefault(kind_by_text(turns, detail_questions), []).append(turns)
    for kind, dialogues in apart.items():
        yield kind, RawPicture(raw.image_id, tuple(dialogues))
