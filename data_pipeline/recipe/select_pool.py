"""All that the selection knows of each item, as compact arrays: no text stays in memory."""

import dataclasses
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt

from data_pipeline.generation.kinds import KINDS
from data_pipeline.recipe.keywords import KeywordMatcher, words_of
from data_pipeline.recipe.select_items import Item

_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
OPENING_WORDS = 2


@dataclasses.dataclass(frozen=True)
class Pool:
    """N items, arrays of length N where nothing else is said.

    `kind` is a place in KINDS. `yes` and `no` count the answers that start so, `questions` the
    questions and `words` the words of both. `tie` is a hash of the item and the seed: who comes
    first among equals, whatever the order of the input. Item i holds the keywords
    `keywords[starts[i]:starts[i + 1]]`, ascending. Of all questions in a row, `opening` says with
    which of `openings` each begins.
    """

    kind: Int[np.ndarray, "N"]
    yes: Int[np.ndarray, "N"]
    no: Int[np.ndarray, "N"]
    questions: Int[np.ndarray, "N"]
    words: Int[np.ndarray, "N"]
    tie: UInt[np.ndarray, "N"]
    starts: Int[np.ndarray, "N+1"]
    keywords: Int[np.ndarray, "K"]
    opening: Int[np.ndarray, "Q"]
    openings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def overlap(self) -> Int[np.ndarray, "N"]:
        """How many different keywords each item holds."""
        return np.diff(self.starts)

    def frequency(self, keywords: int) -> Int[np.ndarray, "W"]:
        """How many items hold each of the `keywords` keywords."""
        return np.bincount(self.keywords, minlength=keywords)

    def keep_keywords(self, kept: Bool[np.ndarray, "W"]) -> "Pool":
        """The same items, with those keywords alone; the numbers of keywords stay."""
        stays = kept[self.keywords]
        before = np.concatenate(([0], np.cumsum(stays, dtype=np.int64)))
        return dataclasses.replace(self, keywords=self.keywords[stays], starts=before[self.starts])

    def first_of_each(self) -> Int[np.ndarray, "D"]:
        """The places of the items that no equal item stands before, ascending."""
        return np.sort(np.unique(self.tie, return_index=True)[1])

    def take(self, items: Int[np.ndarray, "S"]) -> "Pool":
        """The pool of these items alone, in this order."""
        columns = {
            field.name: getattr(self, field.name)[items]
            for field in dataclasses.fields(self)
            if field.name in ("kind", "yes", "no", "questions", "words", "tie")
        }
        first_question = np.concatenate(([0], np.cumsum(self.questions, dtype=np.int64)))
        keywords, starts = _gather(self.keywords, self.starts, items)
        opening, _ = _gather(self.opening, first_question, items)
        return dataclasses.replace(
            self, **columns, starts=starts, keywords=keywords, opening=opening
        )


def _gather(
    values: Int[np.ndarray, "K"], starts: Int[np.ndarray, "E"], items: Int[np.ndarray, "S"]
) -> tuple[Int[np.ndarray, "L"], Int[np.ndarray, "F"]]:
    """The items' stretches of `values`, one after another, and where each starts."""
    lengths = np.diff(starts)[items]
    ends = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(ends[-1]) + np.repeat(starts[items] - ends[:-1], lengths)
    return values[places], ends


def measure_items(items: Iterable[Item], keywords: Sequence[str], seed: int) -> Pool:
    """The pool of the items, in their order."""
    matcher = KeywordMatcher(keywords)
    kind, yes, no, questions = array("b"), array("h"), array("h"), array("h")
    words, tie, found, opening = array("i"), array("Q"), array("h"), array("i")
    starts = array("q", [0])
    number_of: dict[str, int] = {}
    key = str(seed).encode()
    for item in items:
        asked, answered = item.questions, item.answers
        asked_words = [words_of(text) for text in asked]
        all_words = asked_words + [words_of(text) for text in answered]
        found.extend(sorted(set().union(*map(matcher.find, all_words))))
        starts.append(len(found))
        first = [match[1].lower() for match in map(_YES_OR_NO.match, answered) if match]
        kind.append(KINDS.index(item.kind))
        yes.append(first.count("yes"))
        no.append(first.count("no"))
        questions.append(len(asked))
        words.append(sum(map(len, all_words)))
        tie.append(_hash(item, key))
        for text in asked_words:
            start = " ".join(text[:OPENING_WORDS])
            opening.append(number_of.setdefault(start, len(number_of)))
    return Pool(
        kind=_numbers(kind, np.int8),
        yes=_numbers(yes, np.int16),
        no=_numbers(no, np.int16),
        questions=_numbers(questions, np.int16),
        words=_numbers(words, np.int32),
        tie=_numbers(tie, np.uint64),
        starts=_numbers(starts, np.int64),
        keywords=_numbers(found, np.int16),
        opening=_numbers(opening, np.int32),
        openings=tuple(number_of),
    )


def _numbers(values: array, dtype: Any) -> np.ndarray:
    return np.frombuffer(values, dtype) if values else np.zeros(0, dtype)


def _hash(item: Item, key: bytes) -> int:
    dialogue = item.row.dialogue
    text = json.dumps(
        [item.kind, dialogue.id, item.row.image, *(turn.text for turn in dialogue.turns)]
    )
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "little")
