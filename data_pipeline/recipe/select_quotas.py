"""How many items of each kind are selected."""

import re
from collections.abc import Collection, Mapping
from fractions import Fraction

from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import (
    COMPLEX_REASONING,
    CONVERSATION,
    DETAIL_DESCRIPTION,
    KINDS,
    REFERRING_QA,
)

CORE_COUNT = 157_712

# This project's own: the paper's counts by kind are in no source that we could reach.
DEFAULT_SHARES = {
    CONVERSATION: Fraction(25, 100),
    COMPLEX_REASONING: Fraction(35, 100),
    DETAIL_DESCRIPTION: Fraction(10, 100),
    REFERRING_QA: Fraction(30, 100),
}

Quota = int | Fraction

_NUMBER = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


def parse_quotas(texts: Collection[str]) -> dict[str, Quota]:
    """Quotas from `KIND=N` (so many items) or `KIND=P%` (of --count). Raises UserError."""
    quotas: dict[str, Quota] = {}
    for text in texts:
        kind, _, number = text.partition("=")
        match = _NUMBER.fullmatch(number)
        if kind not in KINDS or kind in quotas or match is None:
            raise UserError(
                f"--quota {text} is not KIND=N or KIND=P%, once a kind; "
                f"kinds are {', '.join(KINDS)}."
            )
        quotas[kind] = int(match[1]) if match[1] else Fraction(match[2]) / 100
    return quotas


def settle_quotas(
    count: int, wished: Mapping[str, Quota], available: Mapping[str, int]
) -> dict[str, int]:
    """The number of items of each kind, `count` in all.

    What is wished holds exactly. The other kinds divide the rest in the proportion of
    DEFAULT_SHARES; one with fewer `available` items gives what it has, and the others the more.
    Raises UserError where the wishes come to more than `count`, or the items to less.
    """
    if count < 1:
        raise UserError(f"--count is {count}; expected 1 or more.")
    quotas = {
        kind: wish if isinstance(wish, int) else round(count * wish)
        for kind, wish in wished.items()
    }
    rest = count - sum(quotas.values())
    if rest < 0:
        raise UserError(
            f"the quotas come to {count - rest:,} items, more than --count {count:,}; "
            "lower them or raise --count."
        )
    free = {kind: available.get(kind, 0) for kind in KINDS if kind not in wished}
    if rest > sum(free.values()):
        raise UserError(
            f"{rest:,} items are to be selected of the kinds without a quota, and the input has "
            f"{sum(free.values()):,} ({_listing(free)}); lower --count to "
            f"{count - rest + sum(free.values()):,} or less, raise a --quota, or give more files."
        )
    quotas |= _divided(rest, free)
    return {kind: quotas[kind] for kind in KINDS}


def _divided(rest: int, available: Mapping[str, int]) -> dict[str, int]:
    """`rest` split over the kinds in proportion, none above what is available."""
    quotas: dict[str, int] = {}
    kinds = list(available)
    while kinds:
        # The kind that falls shortest of its share first: its shortfall then raises the others'.
        total = sum(DEFAULT_SHARES[kind] for kind in kinds)
        kind = min(kinds, key=lambda kind: available[kind] / DEFAULT_SHARES[kind])
        fair = rest if len(kinds) == 1 else round(rest * DEFAULT_SHARES[kind] / total)
        quotas[kind] = min(fair, available[kind])
        rest -= quotas[kind]
        kinds.remove(kind)
    return quotas


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items()) or "none"
