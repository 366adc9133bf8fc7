"""Mixtures of datasets, as a user writes them: "a=0.7,b=0.3"."""

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

from data_pipeline.common.errors import UserError

_LONGEST_PERIOD = 10_000


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Folders of datasets. `shares`: how many of each sum(shares) rows are each folder's, as small
    as the weights allow; empty where all of every folder is wanted."""

    folders: tuple[str, ...]
    shares: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Mixture":
        """One folder; several, "a,b"; or several with weights, "a=0.7,b=0.3", which need not sum
        to 1. A folder whose own name has such characters is taken as it is."""
        if Path(text).is_dir() or not {",", "="} & set(text):
            return cls((text,))
        parts = [part.rpartition("=") for part in text.split(",")]
        weighted = [bool(equals) for _, equals, _ in parts]
        if any(weighted) != all(weighted) or not all(tail for *_, tail in parts):
            raise UserError(
                f"datasets {text!r}: each needs a weight, or none has one; write 'a=0.7,b=0.3' or "
                "'a,b'."
            )
        folders = tuple(folder if equals else tail for folder, equals, tail in parts)
        if len(set(folders)) < len(folders) or not all(folders):
            raise UserError(f"datasets {text!r}: a folder is empty or named twice; name each once.")
        if not all(weighted):
            return cls(folders)
        return cls(folders, _shares([weight for *_, weight in parts], text))


def _shares(weights: list[str], text: str) -> tuple[int, ...]:
    try:
        exact = [Fraction(weight) for weight in weights]
    except (ValueError, ZeroDivisionError):
        exact = [Fraction(0)]
    if min(exact) <= 0:
        raise UserError(f"datasets {text!r}: a weight is no number above 0; write 'a=0.7,b=0.3'.")
    whole = [int(weight * math.lcm(*(w.denominator for w in exact))) for weight in exact]
    shares = tuple(weight // math.gcd(*whole) for weight in whole)
    if sum(shares) > _LONGEST_PERIOD:
        raise UserError(
            f"datasets {text!r}: the weights are whole shares of {sum(shares)} rows, more than "
            f"{_LONGEST_PERIOD}; write them with fewer digits."
        )
    return shares
