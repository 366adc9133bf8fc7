"""The balance of yes and no answers that a selection keeps at every step."""

import dataclasses
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from data_pipeline.common.errors import UserError

KEEP = "keep"


@dataclasses.dataclass(frozen=True)
class Balance:
    """Of the answers that start with yes or no, the share `yes_share` shall be yes.

    With Y and N such answers selected, the surplus is D = (1 - share) Y - share N. A selection may
    grow by an item as long as |D| stays within `most`, the largest surplus of a single item: then
    every item fits where D is 0, and the share that comes out differs from the wished one by at
    most `most` / (Y + N). All in whole numbers (both sides times the share's denominator), so
    that nothing depends on rounding. Without a share everything is allowed.
    """

    yes_share: Fraction | None = None
    most: int = 0

    @classmethod
    def of_items(
        cls, yes_share: Fraction | None, yes: Int[np.ndarray, "N"], no: Int[np.ndarray, "N"]
    ) -> "Balance":
        """The balance for items that have so many yes and no answers each."""
        different = set(zip(yes.tolist(), no.tolist(), strict=True))
        unlimited = cls(yes_share)
        return cls(yes_share, max((abs(unlimited.surplus(*item)) for item in different), default=0))

    def surplus(self, yes: int, no: int) -> int:
        """D times the share's denominator."""
        if self.yes_share is None:
            return 0
        part, whole = self.yes_share.numerator, self.yes_share.denominator
        return (whole - part) * yes - part * no

    def allows(self, yes: int, no: int) -> bool:
        """Whether a selection may hold so many yes and no answers."""
        return abs(self.surplus(yes, no)) <= self.most


def parse_yes_share(text: str) -> Fraction | None:
    """The share as an exact number, from "0.5" or "1/3"; None from "keep", which balances nothing.

    Raises UserError for anything else, and for a share that is not between 0 and 1.
    """
    if text == KEEP:
        return None
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise UserError(
            f"--yes-share {text} is no share; expected a number between 0 and 1 (both excluded) or "
            f"'{KEEP}' to leave the answers as they fall."
        )
    return share
