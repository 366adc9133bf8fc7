"""Checks of one dialogue after another: texts, boxes, tokens, duplicates, held-out pictures."""

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from data_pipeline.common.dialogue import IMAGE_MARKER, Dialogue, picture_names
from data_pipeline.common.errors import BadRecordError
from data_pipeline.inspection.box_checks import Size, box_defect, bracketed_boxes
from data_pipeline.inspection.findings import Findings
from data_pipeline.inspection.reading import Reading
from data_pipeline.text.oddities import find_oddities
from data_pipeline.text.templates import V1

_ODDITIES = {
    "unanswered_question": "the last turn is a question; it is read, and nothing is learned of it.",
    "role_in_text": "a turn holds the words that the template writes before an answer.",
    "special_token_in_text": "a turn holds <s>, </s> or <unk>; it is read as ordinary text.",
    "marker_in_text": f"a turn holds {IMAGE_MARKER} where no picture is meant; it is read as text.",
}


def text_digest(image: str | None, dialogue: Dialogue) -> int:
    """64 bits that stand for the picture's name and the turns, whatever the id."""
    digest = hashlib.blake2b((image or "").encode(), digest_size=8)
    for turn in dialogue.turns:
        text = turn.text.encode()
        digest.update(f"{turn.role}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "little")


def _id_digest(dialogue_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(dialogue_id.encode(), digest_size=8).digest(), "little")


def row_defect(reason: str) -> str:
    """The kind of defect that stands behind the reason for which `parse_row` rejected a row."""
    return "image_marker" if f"{IMAGE_MARKER} in " in reason else "bad_row"


class DialogueChecks:
    """Notes what is wrong with each dialogue that it is given; `counts` says what it saw.

    To know duplicates it keeps two hashes of 64 bits a dialogue: half a gigabyte for 3M dialogues.
    """

    def __init__(
        self, findings: Findings, reading: Reading | None = None, held_out: Collection[str] = ()
    ):
        self._findings = findings
        self._reading = reading
        self._held_out = frozenset(held_out)
        self._noted: set[str] = set()
        self._texts: set[int] = set()
        self._ids: set[int] = set()
        self.counts: Counter[str] = Counter()

    def check(self, where: str, image: str | None, size: Size | None, dialogue: Dialogue) -> None:
        """`where` names the dialogue to the user; `size` is its only picture's, if known."""
        self.counts["dialogues"] += 1
        self._check_duplicate(where, image, dialogue)
        self._check_texts(where, image, dialogue)
        if image is not None:
            for name in picture_names(image):
                self._check_held_out(name)
            self._check_boxes(where, size, dialogue)
        if self._reading is not None:
            self._check_tokens(where, image is not None, dialogue)

    def _check_duplicate(self, where: str, image: str | None, dialogue: Dialogue) -> None:
        text, row_id = text_digest(image, dialogue), _id_digest(dialogue.id)
        if text in self._texts:
            about = f"about {', '.join(picture_names(image))} " if image else ""
            self._findings.add("duplicate_text", where, f"an earlier dialogue {about}is the same.")
        elif row_id in self._ids:
            self._findings.add("duplicate_id", where, "an earlier dialogue has this id.")
        self._texts.add(text)
        self._ids.add(row_id)

    def _check_texts(self, where: str, image: str | None, dialogue: Dialogue) -> None:
        for role, name in (("gpt", "empty_answer"), ("human", "empty_question")):
            empty = [
                number
                for number, turn in enumerate(dialogue.turns, start=1)
                if turn.role == role
                and not turn.text.replace(IMAGE_MARKER if role == "human" else "", "").strip()
            ]
            if empty:
                self._findings.add(name, where, f"turn {empty[0]} says nothing.")
        odd = find_oddities(dialogue.turns, V1, image is not None)
        for name, explained in _ODDITIES.items():
            if name in odd:
                self._findings.add(name, where, explained)

    def _check_held_out(self, image: str) -> None:
        if image in self._noted or PurePosixPath(image).stem not in self._held_out:
            return
        self._noted.add(image)
        self._findings.add("held_out", image, "its id is among those to be excluded.")

    def _check_boxes(self, where: str, size: Size | None, dialogue: Dialogue) -> None:
        for number, turn in enumerate(dialogue.turns, start=1):
            if "<st>" in turn.text or "<ed>" in turn.text:
                self._findings.add("box_tags", where, f"turn {number} holds <st> or <ed>.")
            for written, values in bracketed_boxes(turn.text):
                self.counts["boxes"] += 1
                defect = box_defect(values, size)
                if defect is not None:
                    shown = f" of a {size[0]}x{size[1]} picture" if size else ""
                    self._findings.add(defect, where, f"turn {number}: {written}{shown}")

    def _check_tokens(self, where: str, has_picture: bool, dialogue: Dialogue) -> None:
        assert self._reading is not None
        try:
            read = self._reading.counts(dialogue.turns, has_picture)
        except BadRecordError as error:
            self._findings.add("unwritable", where, str(error))
            return
        self.counts.update(
            tokens=read.tokens,
            kept_tokens=read.kept,
            learned_tokens=read.learned,
            picture_tokens=read.patches,
        )
        if read.kept < read.tokens:
            cut = f"{read.tokens} tokens; the last {read.tokens - read.kept} are cut off."
            self._findings.add("truncated", where, cut)
        if not read.learned:
            self._findings.add("nothing_to_learn", where, f"none of {read.kept} tokens has loss.")
