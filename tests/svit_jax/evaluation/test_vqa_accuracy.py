"""The normaliser's vectors and quirks, and VQA accuracy against its definition."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svit_jax.evaluation.vqa_accuracy import (
    agreement,
    normalise_answer,
    server_accuracy,
    server_normalise,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("No, it isn't", "no it isn't"),
        ("The cat's tail", "cat 's tail"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("a red-car", "red car"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("U.S.A.", "usa"),
        ("t-shirt", "t shirt"),
        ("St. John's", "st john 's"),
        ("e.g. this", "eg this"),
        ("10:30", "10:30"),
        ("$5.00", "$5.00"),
        ("A an the", ""),
        ("zero one two three ten eleven", "0 1 2 3 10 eleven"),
        ("couldntve couldn'tve couldnt've", "couldntve couldn't've couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("Im Ive", "im ive"),
    ],
)
def test_normalised_answers_are_those_of_the_reference(answer: str, expected: str) -> None:
    assert normalise_answer(answer) == expected


def test_a_mark_beside_a_space_is_deleted_everywhere() -> None:
    assert normalise_answer("red- t-shirt") == "red tshirt"
    assert normalise_answer("t-shirt") == "t shirt"


def test_only_the_first_32_periods_are_deleted() -> None:
    assert normalise_answer("x" + "." * 32) == "x"
    assert normalise_answer("x" + "." * 35) == "x..."


def test_a_period_after_a_digit_is_deleted_unless_a_digit_follows() -> None:
    assert normalise_answer("3.") == "3"
    assert normalise_answer("v.2") == "v.2"


def test_the_server_keeps_possessives_and_knows_digit_commas() -> None:
    assert server_normalise("The cat's tail") == "cat's tail"
    assert server_normalise("1,000") == "1000"
    assert server_normalise("1,000 t-shirts") == "1000 tshirts"
    assert server_normalise("red,blue") == "red blue"


@pytest.mark.parametrize(
    ("matching", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_matching_annotators_give_the_published_steps(matching: int, accuracy: float) -> None:
    answers = ["red"] * matching + ["blue"] * (10 - matching)
    assert vqa_accuracy("Red.", answers) == pytest.approx(accuracy)


WORDS = st.sampled_from(["red", "blue", "2", "yes", "tshirt"])


@settings(max_examples=60, deadline=None)
@given(prediction=WORDS, answers=st.lists(WORDS, min_size=4, max_size=10))
def test_agreement_is_the_mean_over_all_subsets_without_one_annotator(
    prediction: str, answers: list[str]
) -> None:
    subsets = list(itertools.combinations(answers, len(answers) - 1))
    each = [min(1, sum(a == prediction for a in subset) / 3) for subset in subsets]
    assert agreement(prediction, answers) == pytest.approx(sum(each) / len(each))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab 1,.'-?!/the", max_size=24))
def test_no_article_capital_or_double_space_survives(text: str) -> None:
    words = normalise_answer(text.upper())
    assert words == words.lower()
    assert not {"a", "an", "the"} & set(words.split(" "))
    assert words == " ".join(words.split())


def test_the_server_compares_unanimous_answers_as_they_stand() -> None:
    assert server_accuracy("t shirt", ["t-shirt"] * 10) == 0.0
    assert server_accuracy("t-shirt\n", ["t-shirt"] * 10) == 1.0
    assert server_accuracy("t shirt", ["t-shirt"] * 9 + ["shirt"]) == 1.0
