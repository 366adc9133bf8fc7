"""The selection against greedy written plainly, and against the best of all selections."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import KINDS
from data_pipeline.recipe.select_balance import Balance, parse_yes_share
from data_pipeline.recipe.select_greedy import choose
from data_pipeline.recipe.select_pool import Pool

MakePool = Callable[..., Pool]
ANSWERS = [(0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (2, 1), (3, 0)]


def chance_pool(make_pool: MakePool, seed: int, items: int, words: int, kinds: int) -> Pool:
    rng = random.Random(seed)
    held = [rng.sample(range(words), rng.randint(0, min(4, words))) for _ in range(items)]
    return make_pool(
        [rng.randrange(kinds) for _ in range(items)],
        [rng.choice(ANSWERS) for _ in range(items)],
        held,
        rng.sample(range(1000), items),
    )


def held_by(pool: Pool) -> list[set[int]]:
    return [set(pool.keywords[a:b].tolist()) for a, b in itertools.pairwise(pool.starts.tolist())]


def plain_greedy(pool: Pool, quotas: dict[str, int], share: Fraction | None, cap: int) -> list[int]:
    """Looks at every item at every step; balance in fractions of answers."""
    held = held_by(pool)
    answers = list(zip(pool.yes.tolist(), pool.no.tolist(), strict=True))
    counts: Counter[int] = Counter()
    left = {KINDS.index(kind): n for kind, n in quotas.items()}
    yes = no = 0
    chosen: list[int] = []

    def surplus(y: int, n: int) -> Fraction:
        return Fraction(0) if share is None else abs((1 - share) * y - share * n)

    most = max(surplus(*answer) for answer in answers)
    while sum(left.values()):
        allowed = [
            i
            for i in range(len(held))
            if i not in chosen
            and left.get(int(pool.kind[i]), 0)
            and surplus(yes + answers[i][0], no + answers[i][1]) <= most
        ]
        gain = {i: sum(counts[k] < cap for k in held[i]) for i in allowed}
        if not any(gain.values()) and cap < len(held):
            cap *= 2
            continue
        best = min(allowed, key=lambda i: (-gain[i], -len(held[i]), int(pool.tie[i])))
        chosen.append(best)
        counts.update(held[best])
        left[int(pool.kind[best])] -= 1
        yes, no = yes + answers[best][0], no + answers[best][1]
    return chosen


@pytest.mark.parametrize("seed", range(40))
def test_the_same_as_greedy_written_plainly(make_pool: MakePool, seed: int) -> None:
    rng = random.Random(seed)
    pool = chance_pool(make_pool, seed, 60, rng.choice([3, 8, 20]), 3)
    supply = np.bincount(pool.kind, minlength=3)
    quotas = {KINDS[kind]: int(supply[kind]) // rng.choice([2, 3]) for kind in range(3)}
    share = rng.choice([None, Fraction(1, 2), Fraction(3, 10)])
    cap = rng.choice([1, 2, 5])
    try:
        expected = plain_greedy(pool, quotas, share, cap)
    except ValueError:
        with pytest.raises(UserError, match="for want of"):
            choose(pool, quotas, Balance.of_items(share, pool.yes, pool.no), cap)
        return
    found = choose(pool, quotas, Balance.of_items(share, pool.yes, pool.no), cap)
    assert found.tolist() == expected


def worth(held: list[set[int]], chosen: tuple[int, ...], cap: int) -> int:
    counts = Counter(k for i in chosen for k in held[i])
    return sum(min(cap, n) for n in counts.values())


@pytest.mark.parametrize("seed", range(15))
def test_the_bounds_of_greedy_hold(make_pool: MakePool, seed: int) -> None:
    """Of the best selection's worth, at least 1 - 1/e with a number alone (Nemhauser, Wolsey and
    Fisher 1978), at least a half with quotas by kind (Fisher, Nemhauser and Wolsey 1978)."""
    pool = chance_pool(make_pool, seed, 12, 9, 2)
    held = held_by(pool)
    for cap in (1, 2):
        one_kind = make_pool([0] * 12, [(0, 0)] * 12, [sorted(h) for h in held])
        best = max(worth(held, s, cap) for s in itertools.combinations(range(12), 4))
        found = choose(one_kind, {KINDS[0]: 4}, Balance(), cap)
        assert worth(held, tuple(found.tolist()), cap) >= (1 - 1 / math.e) * best

        of_kind = [np.flatnonzero(pool.kind == kind).tolist() for kind in range(2)]
        quotas = [min(2, len(members)) for members in of_kind]
        best = max(
            worth(held, first + second, cap)
            for first in itertools.combinations(of_kind[0], quotas[0])
            for second in itertools.combinations(of_kind[1], quotas[1])
        )
        found = choose(pool, dict(zip(KINDS, quotas, strict=False)), Balance(), cap)
        assert worth(held, tuple(found.tolist()), cap) >= best / 2


def test_the_cap_makes_room_for_rare_keywords(make_pool: MakePool) -> None:
    """Ten items share two keywords; five others have one of their own each."""
    held = [[0, 1]] * 10 + [[k] for k in range(2, 7)]
    pool = make_pool([0] * 15, [(0, 0)] * 15, held)
    assert set(choose(pool, {KINDS[0]: 6}, Balance(), 1).tolist()) == {0, *range(10, 15)}
    assert set(choose(pool, {KINDS[0]: 6}, Balance(), 100).tolist()) == set(range(6))


@pytest.mark.parametrize("share", ["1/2", "0.3", "0.9"])
def test_single_answers_come_out_in_the_wished_share(make_pool: MakePool, share: str) -> None:
    """90 yes, 90 no, 20 others, the yes with most keywords; of 100 items at most one too many."""
    answers = [(1, 0)] * 90 + [(0, 1)] * 90 + [(0, 0)] * 20
    held = [[0, 1, 2]] * 90 + [[0]] * 90 + [[]] * 20
    pool = make_pool([0] * 200, answers, held)
    wished = parse_yes_share(share)
    assert wished is not None
    found = choose(pool, {KINDS[0]: 100}, Balance.of_items(wished, pool.yes, pool.no), 1000)
    yes, no = int(pool.yes[found].sum()), int(pool.no[found].sum())
    assert yes + no == 100
    assert abs(yes - float(wished) * 100) <= 1
    unbalanced = choose(pool, {KINDS[0]: 100}, Balance(), 1000)
    assert int(pool.yes[unbalanced].sum()) == 90


def test_what_the_balance_refuses_is_refilled_by_the_next_best(make_pool: MakePool) -> None:
    answers = [(1, 0)] * 10 + [(0, 1)] * 2 + [(0, 0)] * 10
    held = [[0, 1, 2]] * 10 + [[0]] * 2 + [[1, 2]] * 5 + [[2]] * 5
    pool = make_pool([0] * 22, answers, held)
    found = choose(pool, {KINDS[0]: 10}, Balance.of_items(Fraction(1, 2), pool.yes, pool.no), 1000)
    yes, no = int(pool.yes[found].sum()), int(pool.no[found].sum())
    assert abs(yes - no) <= 1
    assert set(range(12, 17)) <= set(found.tolist())


def test_what_is_lacking_is_said(make_pool: MakePool) -> None:
    pool = make_pool([0] * 5 + [1] * 5, [(1, 0)] * 5 + [(0, 0)] * 5, [[]] * 10)
    with pytest.raises(UserError, match=r"6 complex_reasoning \(there are 5\)"):
        choose(pool, {KINDS[0]: 1, KINDS[1]: 6}, Balance(), 1)
    balance = Balance.of_items(Fraction(1, 2), pool.yes, pool.no)
    with pytest.raises(UserError, match=r"2 conversation are still .* for want of no answers"):
        choose(pool, {KINDS[0]: 3, KINDS[1]: 5}, balance, 1)


@pytest.mark.parametrize("text", ["0", "1", "-0.5", "half", "1/0", "50%"])
def test_a_wrong_share_is_explained(text: str) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        parse_yes_share(text)
    assert parse_yes_share("keep") is None
