"""Greedy selection for capped coverage: the next item is always the one that adds most.

With n_k(S) the items of S that hold keyword k, a selection S is worth

    F(S) = sum over k of min(cap, n_k(S)),

and an item adds one for each of its keywords that has not reached the cap. Among equals, the item
with more keywords comes first, then the one with the smaller `tie`. Items that the quota of their
kind or the balance of yes and no forbids are passed over; the next best takes their place. When no
allowed item adds anything, the cap is doubled.
"""

import heapq
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import progress_bar
from data_pipeline.generation.kinds import KINDS
from data_pipeline.recipe.select_balance import Balance
from data_pipeline.recipe.select_pool import Pool

Class = tuple[int, int, int]


def choose(
    pool: Pool, quotas: Mapping[str, int], balance: Balance, cap: int
) -> Int[np.ndarray, "S"]:
    """The places of the selected items in the order of selection, `quotas[kind]` of each kind.

    Raises UserError where the quotas cannot be met, saying what is lacking.
    """
    _check_supply(pool, quotas)
    candidates = _Candidates(pool, quotas, cap)
    left = {KINDS.index(kind): quota for kind, quota in quotas.items()}
    yes = no = 0
    chosen: list[int] = []
    wanted = sum(quotas.values())
    with progress_bar(wanted, "select", "item") as bar:
        while len(chosen) < wanted:
            allowed = [
                class_
                for class_ in candidates.classes()
                if left[class_[0]] and balance.allows(yes + class_[1], no + class_[2])
            ]
            if not allowed:
                lacking = "no" if balance.surplus(yes, no) > 0 else "yes"
                raise UserError(_stuck(left, len(chosen), yes, no, lacking))
            class_ = candidates.best_class(allowed)
            chosen.append(candidates.take(class_))
            left[class_[0]] -= 1
            yes += class_[1]
            no += class_[2]
            bar.update()
    return np.array(chosen, np.int64)


class _Candidates:
    """The items not yet selected: a heap for each class of items with the same kind, yes and no.

    An item's key orders by its gain, larger first, then by its rank among equals. Gains only fall
    as keywords reach the cap, so a key in a heap is never too large: a top whose key is still true
    is the best of its class. (This is lazy greedy; it selects what greedy would.)
    """

    def __init__(self, pool: Pool, quotas: Mapping[str, int], cap: int):
        self._pool = pool
        self._cap = cap
        self._most = int(pool.overlap.max(initial=0))
        self._order = np.lexsort((pool.tie, -pool.overlap))
        self._rank = np.empty(len(pool), np.int64)
        self._rank[self._order] = np.arange(len(pool))
        self._held = np.zeros(int(pool.keywords.max(initial=-1)) + 1, np.int64)
        self._left = np.isin(pool.kind, [KINDS.index(k) for k, quota in quotas.items() if quota])
        codes = np.stack([pool.kind, pool.yes, pool.no], axis=1) @ np.array([1 << 32, 1 << 16, 1])
        self._codes, self._code = np.unique(codes, return_inverse=True)
        self._items_by_keyword, self._keyword_starts = _inverted(pool, len(self._held))
        self._refill()

    def classes(self) -> list[Class]:
        return [class_ for class_, heap in self._heaps.items() if heap]

    def best_class(self, allowed: list[Class]) -> Class:
        """The class with the best item, its true key on top; the cap grows if no item adds."""
        while True:
            best, best_class = self._key(0, len(self._pool)), allowed[0]
            for class_ in allowed:
                heap = self._heaps[class_]
                while heap[0] < best:
                    item = self._item(heap[0])
                    key = self._key(int(self._gain[item]), int(self._rank[item]))
                    if key == heap[0]:
                        best, best_class = key, class_
                    else:
                        heapq.heapreplace(heap, key)
            adds_nothing = best >= self._key(0, 0)
            if not adds_nothing or self._cap >= len(self._pool):
                return best_class
            self._cap *= 2
            self._refill()

    def take(self, class_: Class) -> int:
        """The best item of the class, which is selected with this."""
        item = self._item(heapq.heappop(self._heaps[class_]))
        self._left[item] = False
        starts = self._pool.starts
        for keyword in self._pool.keywords[starts[item] : starts[item + 1]]:
            self._held[keyword] += 1
            if self._held[keyword] == self._cap:
                place = self._keyword_starts[keyword : keyword + 2]
                self._gain[self._items_by_keyword[place[0] : place[1]]] -= 1
        return item

    def _refill(self) -> None:
        """Gains and heaps anew, for the present cap."""
        pool = self._pool
        before = np.concatenate(([0], np.cumsum(self._held[pool.keywords] < self._cap)))
        self._gain = np.diff(before[pool.starts]).astype(np.int16)
        left = np.flatnonzero(self._left)
        keys = ((self._most - self._gain[left].astype(np.int64)) << 32) | self._rank[left]
        code = self._code[left]
        self._heaps: dict[Class, list[int]] = {}
        for number, packed in enumerate(self._codes.tolist()):
            class_ = (packed >> 32, packed >> 16 & 0xFFFF, packed & 0xFFFF)
            # A sorted list is a heap.
            self._heaps[class_] = np.sort(keys[code == number]).tolist()

    def _key(self, gain: int, rank: int) -> int:
        return (self._most - gain) << 32 | rank

    def _item(self, key: int) -> int:
        return int(self._order[key & 0xFFFFFFFF])


def _inverted(pool: Pool, keywords: int) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "E"]]:
    """The items that hold each keyword, one keyword after another, and where each one's start."""
    item = np.repeat(np.arange(len(pool), dtype=np.int32), pool.overlap)
    starts = np.concatenate(([0], np.cumsum(pool.frequency(keywords))))
    return item[np.argsort(pool.keywords, kind="stable")], starts


def _check_supply(pool: Pool, quotas: Mapping[str, int]) -> None:
    found = np.bincount(pool.kind, minlength=len(KINDS))
    lacking = [
        f"{quota:,} {kind} (there are {found[KINDS.index(kind)]:,})"
        for kind, quota in quotas.items()
        if quota > found[KINDS.index(kind)]
    ]
    if lacking:
        raise UserError(
            f"the input has too few items: wanted {', '.join(lacking)}; "
            "lower --count or --quota, or give more files."
        )


def _stuck(left: Mapping[int, int], chosen: int, yes: int, no: int, lacking: str) -> str:
    missing = ", ".join(f"{number:,} {KINDS[kind]}" for kind, number in left.items() if number)
    return (
        f"after {chosen:,} items with {yes:,} yes and {no:,} no, {missing} are still to be "
        f"selected, and every one that is left would break the balance for want of "
        f"{lacking} answers; lower --count, change --quota, or choose another --yes-share "
        "('keep' balances nothing)."
    )
