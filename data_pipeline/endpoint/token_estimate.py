"""How many tokens a text is, roughly, without the endpoint's tokenizer."""

import re

_PIECES = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]|_|\n| (?=\d)")
_LETTERS_A_TOKEN = 7
# Each digit, sign, line end and space before a number, and every four letters begun.
_SMALL_PIECES = re.compile(r"[^\W\d_]{1,4}|\n| (?=\d)|\S")


def estimate_tokens(text: str) -> int:
    """Words of up to seven letters, groups of up to three digits, signs, line ends and spaces
    before digits count one each; longer words one for each seven letters begun.

    For the words and boxes of five Visual Genome scenes that is between 1 % less and 5 % more than
    `cl100k_base` and `o200k_base` give, for our instructions up to 19 % more. The usual "four
    characters a token" tells half of what a text full of boxes takes.
    """
    return sum(1 + (len(piece) - 1) // _LETTERS_A_TOKEN for piece in _PIECES.findall(text))


def most_tokens(text: str) -> int:
    """Rather too many tokens than too few, whatever the model.

    On the prompts of Visual Genome's pictures 1 to 5 it is 1.03 to 1.15 times the tokens of Llama
    2, which takes digits one by one, and 1.32 to 1.40 times those of GPT-4 and GPT-4o.
    """
    return len(_SMALL_PIECES.findall(text))
