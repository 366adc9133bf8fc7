"""Which row comes when: computed from the seed and the row's number, so that no order is kept."""

import functools
import itertools

import numpy as np
from grain.experimental import index_shuffle


@functools.lru_cache(maxsize=64)
def _epoch_seed(seed: int, epoch: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1)[0])


def permuted(index: int, count: int, seed: int, stream: int = 0) -> int:
    """The place that `index` = 0, 1, ... has among `count`: every `count` indices, an epoch, are a
    permutation of their own; streams differ.

    The cipher behind it is Grain's own shuffle: no array of the order ever exists.
    """
    epoch, place = divmod(index, count)
    return index_shuffle(
        index=place, max_index=count - 1, seed=_epoch_seed(seed, epoch, stream), rounds=4
    )


def mixed(index: int, shares: tuple[int, ...], seed: int) -> tuple[int, int]:
    """(k, n): global index `index` is the n-th of part k of a mixture.

    Of each sum(shares) indices in a row, shares[k] are part k's, in shuffled order.
    """
    period = sum(shares)
    place = permuted(index, period, seed, stream=len(shares) + 1)
    first = 0
    for part, (share, end) in enumerate(zip(shares, itertools.accumulate(shares), strict=True)):
        if place < end:
            return part, index // period * share + place - first
        first = end
    raise AssertionError(f"place {place} is outside the {period} of a period")
