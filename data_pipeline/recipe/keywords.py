"""Which keywords a text holds: words compared in lower case, with English endings.

A word is a run of letters. A keyword is one word or several in a row. One of its words, the first
or the last, may be inflected: plural or third person, -ed, -ing; other irregular forms need a
keyword of their own. A form that is itself a keyword belongs to that keyword alone.
"""

import re
from collections.abc import Iterator, Sequence

from data_pipeline.generation.wording import plural

_WORD = re.compile(r"[^\W\d_]+")
# The same where the text is ASCII, in half the time.
_ASCII_WORD = re.compile(r"[a-z]+")
_DOUBLED = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")

Words = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The text's words in lower case; digits, hyphens and apostrophes part words."""
    pattern = _ASCII_WORD if text.isascii() else _WORD
    return pattern.findall(text.lower())


def inflections(word: str) -> set[str]:
    """The word, its plural, -ed and -ing forms by the regular rules of English spelling.

    A short word such as "run" doubles its last letter, a final e goes, y turns to i.
    """
    forms = {word, plural(word)}
    if word.endswith(("ee", "ye", "oe")):
        return forms | {f"{word}ing"}
    if word.endswith("ie"):
        return forms | {f"{word}d", f"{word[:-2]}ying"}
    if word.endswith("e"):
        return forms | {f"{word}d", f"{word[:-1]}ing"}
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return forms | {f"{word[:-1]}ied", f"{word}ing"}
    stem = word + word[-1] if _DOUBLED.fullmatch(word) else word
    return forms | {f"{stem}ed", f"{stem}ing"}


def _forms(words: Words) -> Iterator[Words]:
    first, last = words[0], words[-1]
    yield from ((form, *words[1:]) for form in sorted(inflections(first)))
    yield from ((*words[:-1], form) for form in sorted(inflections(last)))


class KeywordMatcher:
    """Finds keywords in texts, and names them by their places in the list given here.

    Each needs a letter (a concept set's have).
    """

    def __init__(self, keywords: Sequence[str]):
        exact: dict[Words, int] = {}
        for number, keyword in enumerate(keywords):
            exact.setdefault(tuple(words_of(keyword)), number)
        inflected: dict[Words, int] = {}
        for words, number in exact.items():
            for form in _forms(words):
                inflected.setdefault(form, number)
        self._single: dict[str, int] = {}
        self._phrases: dict[str, list[tuple[list[str], int]]] = {}
        for words, number in (inflected | exact).items():
            if len(words) == 1:
                self._single[words[0]] = number
            else:
                self._phrases.setdefault(words[0], []).append((list(words), number))
        # Sets, since the intersection of two sets costs as much as the smaller one.
        self._single_words, self._heads = frozenset(self._single), frozenset(self._phrases)

    def find(self, words: list[str]) -> set[int]:
        """The keywords that stand in the text of these words (as `words_of` gives them)."""
        different = set(words)
        found = {self._single[word] for word in different & self._single_words}
        heads = different & self._heads
        for place, word in enumerate(words if heads else ()):
            if word in heads:
                for phrase, number in self._phrases[word]:
                    if number not in found and words[place : place + len(phrase)] == phrase:
                        found.add(number)
        return found
