"""How many of each kind: closed forms, and what cannot be."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import KINDS
from data_pipeline.recipe.select_quotas import CORE_COUNT, parse_quotas, settle_quotas

CONVERSATION, COMPLEX, DETAIL, REFERRING = KINDS
# The full SVIT's rows by kind, from the fact sheet's totals.
FULL = {CONVERSATION: 318_442, COMPLEX: 1_556_902, DETAIL: 106_274, REFERRING: 1_011_181}


def test_the_core_subset_by_default() -> None:
    quotas = settle_quotas(CORE_COUNT, {}, FULL)
    assert sum(quotas.values()) == 157_712
    for kind, share in zip(KINDS, (0.25, 0.35, 0.10, 0.30), strict=True):
        assert quotas[kind] == pytest.approx(share * 157_712, abs=1)


def test_wishes_hold_and_the_rest_is_divided() -> None:
    wished = parse_quotas([f"{CONVERSATION}=1000", f"{DETAIL}=12.5%"])
    assert wished == {CONVERSATION: 1000, DETAIL: Fraction(1, 8)}
    quotas = settle_quotas(8000, wished, FULL)
    assert (quotas[CONVERSATION], quotas[DETAIL]) == (1000, 1000)
    assert quotas[COMPLEX] == round(6000 * 35 / 65)
    assert sum(quotas.values()) == 8000


def test_a_kind_that_falls_short_leaves_more_to_the_others() -> None:
    quotas = settle_quotas(100, {}, {CONVERSATION: 5, COMPLEX: 0, DETAIL: 500, REFERRING: 500})
    assert quotas == {CONVERSATION: 5, COMPLEX: 0, DETAIL: 24, REFERRING: 71}


@settings(max_examples=300, deadline=None)
@given(available=st.lists(st.integers(0, 60), min_size=4, max_size=4), data=st.data())
def test_any_possible_number_is_divided_within_what_there_is(
    available: list[int], data: st.DataObject
) -> None:
    supply = dict(zip(KINDS, available, strict=True))
    if not any(available):
        return
    count = data.draw(st.integers(1, sum(available)))
    quotas = settle_quotas(count, {}, supply)
    assert sum(quotas.values()) == count
    assert all(0 <= quotas[kind] <= supply[kind] for kind in KINDS)


def test_impossible_numbers_say_what_is_lacking() -> None:
    with pytest.raises(UserError, match=r"10 conversation.*--count to 10 or less"):
        settle_quotas(20, {}, {CONVERSATION: 10})
    with pytest.raises(UserError, match=r"come to 30 items, more than --count 20"):
        settle_quotas(20, {DETAIL: 30}, FULL)
    with pytest.raises(UserError, match="--count is 0"):
        settle_quotas(0, {}, FULL)


@pytest.mark.parametrize("text", ["poem=3", "conversation", "conversation=x", "conversation=-1%"])
def test_a_wrong_quota_is_explained(text: str) -> None:
    with pytest.raises(UserError, match="KIND=N or KIND=P%"):
        parse_quotas([text])
    with pytest.raises(UserError, match="once a kind"):
        parse_quotas(["conversation=1", "conversation=2"])
