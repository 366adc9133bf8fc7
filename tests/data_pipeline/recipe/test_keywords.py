"""Words, endings and phrases, against English and against a search in plain strings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.recipe.keywords import KeywordMatcher, inflections, words_of


@pytest.mark.parametrize(
    "word, forms",
    [
        ("car", "cars"),
        ("bus", "buses"),
        ("box", "boxes"),
        ("city", "cities"),
        ("man", "men"),
        ("play", "plays played playing"),
        ("run", "runs running"),
        ("stop", "stops stopped stopping"),
        ("smile", "smiles smiled smiling"),
        ("carry", "carries carried carrying"),
        ("open", "opens opened opening"),
        ("look", "looks looked looking"),
        ("lie", "lies lied lying"),
        ("see", "sees seeing"),
        ("watch", "watches watched watching"),
        ("fix", "fixes fixed fixing"),
    ],
)
def test_regular_english(word: str, forms: str) -> None:
    assert {word, *forms.split()} <= inflections(word)


@pytest.mark.parametrize(
    "word, others",
    [("see", "seed"), ("car", "care cared caring"), ("plan", "plane planed"), ("star", "stare")],
)
def test_words_that_only_look_alike(word: str, others: str) -> None:
    assert inflections(word).isdisjoint(others.split())


def find(keywords: list[str], text: str) -> set[str]:
    return {keywords[place] for place in KeywordMatcher(keywords).find(words_of(text))}


def test_case_hyphens_digits_and_punctuation_do_not_matter() -> None:
    assert words_of("A T-shirt's 2nd café-au-lait.") == [
        *("a", "t", "shirt", "s", "nd", "café", "au", "lait"),
    ]
    assert find(["t-shirt", "two", "sign"], "TWO T-Shirts; designs") == {"t-shirt", "two"}


def test_a_phrase_may_be_inflected_at_either_end() -> None:
    keywords = ["traffic light", "look at", "light", "in front of"]
    assert find(keywords, "Traffic lights in front") == {"traffic light", "light"}
    assert find(keywords, "She looked at it, in front of me") == {"look at", "in front of"}
    assert find(keywords, "traffic and light") == {"light"}


def test_a_form_that_is_a_keyword_itself_is_nobody_elses() -> None:
    assert find(["paint", "painting"], "paintings") == {"painting"}
    assert find(["paint", "painting"], "painted") == {"paint"}
    assert find(["sitting", "sit"], "they are sitting") == {"sitting"}


words = st.text(alphabet="ab", min_size=1, max_size=2)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(keywords=st.lists(phrases, max_size=5, unique=True), text=st.lists(words, max_size=12))
def test_the_search_finds_what_stands_in_the_string(keywords: list[str], text: list[str]) -> None:
    """Invented words whose inflected forms (they get another letter) never stand in a text."""
    plain = " " + " ".join(text) + " "
    assert find(keywords, plain) == {keyword for keyword in keywords if f" {keyword} " in plain}
