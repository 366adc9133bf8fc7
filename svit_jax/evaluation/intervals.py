"""How sure a figure is: bootstrap intervals over pictures, paired differences, McNemar's test.

Questions about one picture are answered alike, so pictures are drawn, with all their questions:
drawing questions would call a figure surer than it is.
"""

import math
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Tally:
    """A figure as a function of sums: row c of `rows` [C, K] is what cluster c (a picture) adds,
    `figure` turns sums [..., K] into figures [...]. `strata` [C] numbers what is drawn apart, as
    the subtasks of MME: each keeps its number of clusters."""

    rows: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray]
    strata: np.ndarray

    @property
    def value(self) -> float:
        return float(self.figure(self.rows.sum(axis=0)))


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the bootstrap's figures."""

    low: float
    high: float


def make_tally(
    clusters: Sequence[Hashable],
    parts: Sequence[Sequence[float]] | np.ndarray,
    figure: Callable[[np.ndarray], np.ndarray],
    strata: Sequence[Hashable] | None = None,
) -> Tally:
    """Adds up the parts [N, K] of N questions by cluster; a cluster lies in one stratum."""
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    rows = np.zeros((len(places), len(parts[0])))
    numbers = np.zeros(len(places), np.int64)
    names = {name: number for number, name in enumerate(dict.fromkeys(strata or ()))}
    for question, (cluster, part) in enumerate(zip(clusters, parts, strict=True)):
        rows[places[cluster]] += part
        numbers[places[cluster]] = names[strata[question]] if strata else 0
    return Tally(rows, figure, numbers)


def mean_tally(credits: Sequence[float], clusters: Sequence[Hashable]) -> Tally:
    """The mean credit x 100."""
    return make_tally(
        clusters, [(credit, 1.0) for credit in credits], lambda s: 100 * ratio(s[..., 0], s[..., 1])
    )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is."""
    return np.divide(part, whole, out=np.zeros_like(whole, dtype=float), where=whole != 0)


def bootstrap(tally: Tally, name: str) -> Interval:
    """The percentile interval of the figure. The draws are a function of `name` alone."""
    return _middle(tally.figure(np.stack([w @ tally.rows for w in _draws(tally, name)])))


def bootstrap_difference(first: Tally, second: Tally, name: str) -> Interval:
    """The interval of second - first, both on the same clusters, drawn together."""
    differences = [
        second.figure(weights @ second.rows) - first.figure(weights @ first.rows)
        for weights in _draws(first, name)
    ]
    return _middle(np.array(differences))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: how likely so uneven a split of the questions
    that just one of two models gets right is, were both as good. It takes questions as
    independent, those of one picture too."""
    total = only_first + only_second
    tail = sum(math.comb(total, k) for k in range(min(only_first, only_second) + 1))
    # Whole numbers to the end: 2 ** total is beyond a float from 1,024 on.
    return min(1.0, 2 * tail / 2**total)


def _draws(tally: Tally, name: str) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, once for each of the draws."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    members = [np.flatnonzero(tally.strata == number) for number in np.unique(tally.strata)]
    for _ in range(DRAWS):
        weights = np.zeros(len(tally.rows))
        for places in members:
            drawn = rng.integers(len(places), size=len(places))
            weights[places] = np.bincount(drawn, minlength=len(places))
        yield weights


def _middle(figures: np.ndarray) -> Interval:
    edge = 50 * (1 - LEVEL)
    low, high = np.percentile(figures, (edge, 100 - edge))
    return Interval(float(low), float(high))
