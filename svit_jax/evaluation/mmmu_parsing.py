"""How MMMU reads and judges answers: its `eval_utils.py`, quirks kept."""

import re
from collections.abc import Sequence

# Stripped one after the other, so that "A.'" keeps its period: by then only "'" is looked for.
_MARKS = ",.!?;:'"
_MANY_WORDS = 5
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_EXPONENT = r"[eE][+-]?\d+"
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(rf"-?\d+(?:\.\d+)?{_EXPONENT}"),
    re.compile(rf"-?(?:\d*\.\d+|\d+\b)(?!{_EXPONENT})(?![,\d])"),
)

Value = str | float


def letters(options: Sequence[str]) -> list[str]:
    """A, B, ... for the options."""
    return [chr(ord("A") + number) for number in range(len(options))]


def parse_choice(response: str, options: Sequence[str]) -> str | None:
    """The letter that the response chooses; None where the official script draws one at random.

    Looked for in this order: "(B)"; " B " with spaces around it; in responses of more than five
    words, an option's text, whatever its case. Of several found, the one that occurs last counts.
    """
    for mark in _MARKS:
        response = response.strip(mark)
    response = f" {response} "
    names = letters(options)
    in_brackets = {letter: response.rfind(f"({letter})") for letter in names}
    between_spaces = {letter: response.rfind(f" {letter} ") for letter in names}
    places = [in_brackets, between_spaces]
    if len(response.split()) > _MANY_WORDS:
        lowered = response.lower()
        texts = zip(names, options, strict=True)
        places.append({letter: lowered.rfind(option.lower()) for letter, option in texts})
    for found in places:
        last = max(found, key=lambda letter: found[letter])
        if found[last] >= 0:
            return last
    return None


def parse_open(response: str) -> set[Value]:
    """Everything that the response may mean: the tails of its lines and the numbers in them.

    Of each line (the official split at sentences never matches, being tried after lowercasing) the
    shortest tail behind a word like "is" or "therefore" counts, in the last line behind "=" too;
    without any, the whole response.
    """
    response = response.strip().strip(".").lower()
    lines = response.split("\n")
    tails = []
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        shortest = ""
        for indicator in (*_INDICATORS, "=") if last else _INDICATORS:
            if indicator in line:
                tail = line.split(indicator)[-1].strip()
                if not shortest or len(tail) < len(shortest):
                    shortest = tail
        if shortest and shortest not in tuple(_MARKS):
            tails.append(shortest)
    tails = tails or [response]
    numbers = [text for tail in tails for pattern in _NUMBERS for text in pattern.findall(tail)]
    return {value for text in (*tails, *numbers) for value in normalise(text)}


def normalise(text: str) -> list[Value]:
    """A number as a float of two decimals, anything else lowercased; a single character only
    beside a space, lest it be found in every word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        pass
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def open_is_right(said: set[Value], truths: Sequence[str], whole_words: bool = False) -> bool:
    """Whether a true text is contained in something said, or a true number was said."""

    def holds(value: str, text: str) -> bool:
        return f" {text.strip()} " in f" {value} " if whole_words else text in value

    values = [value for truth in truths for value in normalise(truth)]
    texts = [value for value in values if isinstance(value, str)]
    return any(
        any(holds(value, text) for text in texts) if isinstance(value, str) else value in values
        for value in said
    )
