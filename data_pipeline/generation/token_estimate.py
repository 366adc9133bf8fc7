"""How many tokens a text is, roughly, without the endpoint's tokenizer."""

import re

_PIECES = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]|_|\n")
_LETTERS_A_TOKEN = 7


def estimate_tokens(text: str) -> int:
    """Words of up to seven letters, groups of up to three digits, signs and line ends count one
    each; longer words one for each seven letters begun. Boxes are mostly digits and signs, so the
    usual "four characters a token" would tell half of what a scene takes."""
    return sum(1 + (len(piece) - 1) // _LETTERS_A_TOKEN for piece in _PIECES.findall(text))
