"""The page that draws a dataset's figures."""

from collections.abc import Mapping

from data_pipeline.common.bar_chart import BAR_STYLE, bar_chart, heat_map, histogram
from data_pipeline.common.files import PathLike, write_text
from data_pipeline.common.html import Html, element, fragment, page, table
from data_pipeline.inspection.statistics import BOX_SIZE_BINS, Statistics, Summary

_HEAT_STYLE = ".heat { max-width: 20rem; }"


def write_stats_page(statistics: Statistics, path: PathLike, title: str) -> None:
    """Writes a self-contained HTML page with all figures, as tables, bars and histograms."""
    s = statistics
    body = fragment(
        element("h1", title),
        element("p", statistics_line(s)),
        element("h2", "Kinds"),
        element("p", "By the stem of the dialogues' ids.", class_="soft small"),
        _kinds(s),
        element("h2", "Lengths"),
        _lengths(s),
        _charts(
            _histogram("Words in a question", s.question_words, "words"),
            _histogram("Words in an answer", s.answer_words, "words"),
            _histogram("Rounds in a dialogue", s.rounds, "rounds"),
            _histogram("Dialogues about a picture", s.dialogues_a_picture, "dialogues"),
            _histogram("Tokens in a dialogue", s.tokens, "tokens") if s.tokens else Html(""),
        ),
        element("h2", "How questions begin"),
        _charts(
            bar_chart("First word", list(s.first_words.items())),
            bar_chart("First three words", list(s.first_three_words.items())),
        ),
        element("h2", "Yes and no"),
        element("p", _yes_no_line(s), class_="soft small"),
        bar_chart("Answers that begin with", list(s.yes_no.items())),
        _boxes(s),
        _pictures(s),
    )
    write_text(path, page(title, body, style=BAR_STYLE + _HEAT_STYLE))


def statistics_line(s: Statistics) -> str:
    """The figures that say most, in one line."""
    parts = [f"{s.dialogues:,} dialogues about {s.pictures:,} pictures"]
    if s.text_only:
        parts.append(f"{s.text_only:,} of them text alone")
    parts.append(f"{s.boxes:,} boxes")
    if s.tokens:
        parts.append(f"{s.tokens.mean:,.0f} tokens a dialogue")
    if s.masked_share is not None:
        parts.append(f"{s.masked_share:.1%} of tokens masked")
    if s.unwritable:
        parts.append(f"{s.unwritable:,} that the template can't write")
    if s.skipped_rows:
        parts.append(f"{s.skipped_rows:,} unusable rows left out")
    return "; ".join(parts) + "."


def _charts(*charts: Html) -> Html:
    return element("div", *charts, class_="charts")


def _histogram(title: str, summary: Summary | None, label: str) -> Html:
    return histogram(title, summary.counts if summary else {}, label)


def _kinds(s: Statistics) -> Html:
    rows = [
        (
            name,
            f"{kind.dialogues:,}",
            f"{kind.rounds:,}",
            f"{kind.question_words:.1f}",
            f"{kind.answer_words:.1f}",
        )
        for name, kind in s.kinds.items()
    ]
    header = ("kind", "dialogues", "rounds", "words a question", "words an answer")
    return table(header, rows, numeric=range(1, 5))


def _lengths(s: Statistics) -> Html:
    named: Mapping[str, Summary | None] = {
        "words in a question": s.question_words,
        "words in an answer": s.answer_words,
        "rounds in a dialogue": s.rounds,
        "dialogues about a picture": s.dialogues_a_picture,
        "tokens in a dialogue": s.tokens,
        "boxes in a turn that has any": s.boxes_a_turn,
        "longer side of a picture (pixels)": s.longer_sides,
    }
    rows = [
        (
            name,
            f"{one.count:,}",
            f"{one.mean:,.2f}",
            *(f"{value:,}" for value in (one.least, one.median, one.p95, one.largest)),
        )
        for name, one in named.items()
        if one is not None
    ]
    header = ("", "counted", "mean", "least", "median", "95 %", "largest")
    return table(header, rows, numeric=range(1, 7))


def _yes_no_line(s: Statistics) -> str:
    yes, no = s.yes_no["yes"], s.yes_no["no"]
    answers = s.answer_words.count if s.answer_words else 0
    if not yes + no:
        return f"None of {answers:,} answers begins with yes or no."
    return (
        f"{yes + no:,} of {answers:,} answers begin with yes or no; {yes / (yes + no):.1%} of "
        "those with yes."
    )


def _boxes(s: Statistics) -> Html:
    if not s.boxes:
        return Html("")
    return fragment(
        element("h2", "Boxes"),
        element(
            "p",
            "On the padded square, as the model sees it. Size is the root of a box's area, as a "
            "share of the square's side.",
            class_="soft small",
        ),
        _charts(
            histogram("Size of a box", s.box_sizes, "share of the side", 1 / BOX_SIZE_BINS),
            _histogram("Boxes in a turn that has any", s.boxes_a_turn, "boxes"),
            element("div", heat_map("Centres of boxes", s.box_centres), class_="heat"),
        ),
    )


def _pictures(s: Statistics) -> Html:
    if s.longer_sides is None:
        return Html("")
    return fragment(
        element("h2", "Pictures"),
        _charts(
            _histogram("Longer side", s.longer_sides, "pixels"),
            histogram("Aspect ratio", s.aspect_ratios, "width by height", 0.1),
            bar_chart("Commonest sizes", list(s.picture_sizes.items())),
        ),
    )
