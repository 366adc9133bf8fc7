"""The page about a selection: what it holds more of than a random choice, in plots."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from data_pipeline.common.grouped_bar_chart import grouped_bar_chart
from data_pipeline.common.html import Html, Series, element, fragment, line_chart, page, table
from data_pipeline.recipe.select_compare import LENGTH_STEP, LONGEST, Comparison, Summary

MOST_OPENINGS = 20
_INTRODUCTION = (
    "The selection beside all items of the input, and beside a random choice with the same number "
    "of each kind. Keywords rarer than the threshold count nowhere."
)


def report_page(
    comparison: Comparison, dropped: Mapping[str, int], yes_share: Fraction | None
) -> str:
    """The whole page, which needs no other file."""
    sets = {
        "all": comparison.all,
        "random": comparison.random,
        "selected": comparison.selected,
    }
    wished = "as it falls" if yes_share is None else f"{float(yes_share):.3g}"
    body = fragment(
        element("h1", "The selected subset"),
        element("p", _INTRODUCTION),
        _overview(sets),
        element("h2", "Concepts"),
        element("p", "The share of items that hold at least one keyword of the concept."),
        element("div", *_concepts(sets), class_="charts"),
        element("h2", "Keywords"),
        element("div", _keywords(sets), class_="charts"),
        _dropped(dropped),
        element("h2", "Answers, kinds, lengths"),
        element("p", f"The wished share of yes among answers that start with yes or no: {wished}."),
        element("div", _answers(sets), _kinds(sets), _lengths(sets), class_="charts"),
        element("h2", "First words of the questions"),
        element("div", *_openings(sets), class_="charts"),
    )
    return page("The selected subset", body, description=_INTRODUCTION)


Sets = Mapping[str, Summary]


def _overview(sets: Sets) -> Html:
    lines: tuple[tuple[str, Callable[[Summary], str]], ...] = (
        ("items", lambda one: f"{one.items:,}"),
        ("questions", lambda one: f"{one.questions:,}"),
        ("words in an item", lambda one: f"{one.mean_words:.1f}"),
        ("different keywords in an item", lambda one: f"{one.mean_keywords:.2f}"),
        ("capped coverage F", lambda one: f"{one.worth:,}"),
        ("answers that start with yes", lambda one: f"{one.yes:,}"),
        ("answers that start with no", lambda one: f"{one.no:,}"),
        ("share of yes among them", lambda one: f"{_yes_share(one):.4f}"),
    )
    rows = [(name, *(write(one) for one in sets.values())) for name, write in lines]
    return table(("", *sets), rows, caption="In figures", numeric=(1, 2, 3))


def _yes_share(one: Summary) -> float:
    return one.yes / max(1, one.yes + one.no)


def _concepts(sets: Sets) -> list[Html]:
    names = list(sets["all"].covered)
    benchmarks = dict.fromkeys(name.partition("/")[0] for name in names)
    charts = []
    for benchmark in benchmarks:
        members = [name for name in names if name.startswith(f"{benchmark}/")]
        labels = [name.partition("/")[2].replace("_", " ") for name in members]
        values = {key: [one.covered[name] for name in members] for key, one in sets.items()}
        charts.append(grouped_bar_chart(benchmark, labels, values, "share of items", percent=True))
    return charts


def _keywords(sets: Sets) -> Html:
    lines = [
        Series(name, [(k, math.log10(n)) for k, n in enumerate(sets[name].keyword_counts, 1) if n])
        for name in ("random", "selected")
    ]
    ranked = "keywords, most frequent first"
    return line_chart("Items with each keyword", lines, ranked, "items (log10)")


def _dropped(dropped: Mapping[str, int]) -> Html:
    if not dropped:
        return element("p", "No keyword was rarer than the threshold.")
    listed = ", ".join(f"{keyword} ({count})" for keyword, count in dropped.items())
    return element(
        "details",
        element("summary", f"{len(dropped)} keywords were rarer than the threshold"),
        element("p", f"With the number of items that hold each: {listed}."),
        class_="small",
    )


def _answers(sets: Sets) -> Html:
    values = {name: [one.yes / one.questions, one.no / one.questions] for name, one in sets.items()}
    labels = ["yes", "no"]
    return grouped_bar_chart(
        "Answers that start so", labels, values, "share of answers", percent=True
    )


def _kinds(sets: Sets) -> Html:
    kinds = list(sets["all"].kinds)
    values = {name: [one.kinds[kind] / one.items for kind in kinds] for name, one in sets.items()}
    labels = [kind.replace("_", " ") for kind in kinds]
    return grouped_bar_chart("Kinds", labels, values, "share of items", percent=True)


def _lengths(sets: Sets) -> Html:
    lines = [Series(name, one.lengths) for name, one in sets.items()]
    title = f"Lengths, in steps of {LENGTH_STEP}, all from {LONGEST} on at the end"
    return line_chart(title, lines, "words in an item", "share of items")


def _openings(sets: Sets) -> list[Html]:
    """The commonest openings of the input, and those of the selection."""
    charts = []
    for title, ranked in (("Commonest in the input", "all"), ("In the selection", "selected")):
        shares = sets[ranked].openings
        most = sorted(shares, key=lambda opening: (-shares[opening], opening))[:MOST_OPENINGS]
        values = {name: [one.openings[o] for o in most] for name, one in sets.items()}
        labels = [opening or "(no word)" for opening in most]
        charts.append(grouped_bar_chart(title, labels, values, "share of questions", percent=True))
    return charts
