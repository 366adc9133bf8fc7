"""Multiple choice as LLaVA-1.5 asks it; plain readings of a choice, for strict scoring."""

import re
from collections.abc import Sequence

LETTERS = "ABCDE"
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
"""What LLaVA-1.5 appends to a question with lettered options."""

_AT_THE_START = re.compile(r"\s*\(?([A-Za-z])(?:[.:,)]|\s*$)")
_YES_OR_NO = re.compile(r"\b(yes|no|not)\b|n't\b")
_IN_A_SENTENCE = re.compile(r"\banswer is:? \(?([A-Z])\b")


def lettered(options: Sequence[str]) -> str:
    """The options, each on a line of its own: "\\nA. red\\nB. blue"."""
    return "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))


def named_letter(answer: str, count: int) -> str | None:
    """The letter among the first `count` that an answer names in any plain way: "b", "(B)",
    "B. red", "The answer is B"; None where there is none or it is none of the options'."""
    found = _AT_THE_START.match(answer) or _IN_A_SENTENCE.search(answer)
    letter = found[1].upper() if found else ""
    return letter if letter and letter in LETTERS[:count] else None


def first_yes_or_no(answer: str) -> str:
    """ "yes" or "no", whichever word an answer says first in whatever case; else "other"."""
    found = _YES_OR_NO.search(answer.lower())
    if found is None:
        return "other"
    return "yes" if found[0] == "yes" else "no"
