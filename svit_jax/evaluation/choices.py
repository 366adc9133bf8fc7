"""Multiple choice as LLaVA-1.5 asks it: lettered options, then the wish for a letter alone."""

from collections.abc import Sequence

LETTERS = "ABCDE"
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
"""What LLaVA-1.5 appends to a question with lettered options."""


def lettered(options: Sequence[str]) -> str:
    """The options, each on a line of its own: "\\nA. red\\nB. blue"."""
    return "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
