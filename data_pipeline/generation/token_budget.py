"""Which lines of a long scene a prompt has room for."""

from collections.abc import Sequence
from typing import NamedTuple

from data_pipeline.endpoint.token_estimate import most_tokens


class Line(NamedTuple):
    """One annotation as text; `area` is that of its box, in pixels."""

    text: str
    area: int


def fit_lines(groups: Sequence[Sequence[Line]], tokens: int) -> list[list[str]]:
    """The texts of each group that fit into `tokens` together, in their old order.

    Each group gets the part of `tokens` that it has of all groups' tokens. Its lines are taken by
    the area of their boxes, the largest first and the earlier of equals, up to the first that no
    longer fits: small things go first, and what is left doesn't depend on chance.
    """
    costs = [[most_tokens(f"{line.text}\n") for line in group] for group in groups]
    needed = sum(map(sum, costs))
    if needed <= tokens:
        return [[line.text for line in group] for group in groups]
    fitting = []
    for group, cost in zip(groups, costs, strict=True):
        left = tokens * sum(cost) // needed
        kept = []
        for place in sorted(range(len(group)), key=lambda k: (-group[k].area, k)):
            left -= cost[place]
            if left < 0:
                break
            kept.append(place)
        fitting.append([group[place].text for place in sorted(kept)])
    return fitting


def fit_start(lines: Sequence[str], tokens: int) -> list[str]:
    """As many of the first lines as fit into `tokens`."""
    for count, line in enumerate(lines):
        tokens -= most_tokens(f"{line}\n")
        if tokens < 0:
            return list(lines[:count])
    return list(lines)
