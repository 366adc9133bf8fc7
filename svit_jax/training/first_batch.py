"""A page that shows what the first step eats: pictures, text, and which tokens carry loss."""

import io
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.common.files import write_text
from data_pipeline.common.html import Html, data_uri, element, fragment, page, table
from data_pipeline.loading.batch import Batch
from data_pipeline.text.tokenizer import Tokenizer

_MOST_ROWS = 32
_STYLE = """
.segment { border-left: 3px solid var(--rule); padding-left: .75rem; margin: 1rem 0; }
.tokens { max-width: none; white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens .plain { color: var(--soft); }
.tokens .loss { background: #ffe28a; color: #1d2125; border-radius: 2px; }
.tokens .picture { border: 1px solid var(--link); color: var(--link); border-radius: 3px;
  padding: 0 .3rem; font-size: .875rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; }
.pictures img { width: 10rem; image-rendering: auto; background: var(--panel); }
"""


class Run(NamedTuple):
    """Tokens in a row that are alike: `picture` is the slot whose patches they are, -1 for text."""

    picture: int
    weight: float
    tokens: int
    text: str


def segment_runs(
    batch: Batch, row: int, segment: int, tokenizer: Tokenizer, patches: int
) -> Iterator[Run]:
    """The segment's tokens in order, those that are alike together."""
    here = np.flatnonzero(batch.segment_ids[row] == segment)
    slots = np.where(batch.vision_index[row] < 0, -1, batch.vision_index[row] // patches)

    def kind(place: int) -> tuple[int, float]:
        return int(slots[place]), float(batch.loss_weights[row, place])

    for (picture, weight), places in groupby(here.tolist(), kind):
        ids = [int(batch.tokens[row, place]) for place in places]
        text = "" if picture >= 0 else tokenizer.shown(ids)
        yield Run(picture, weight, len(ids), text)


def write_first_batch(
    path: epath.Path, batch: Batch, rows: tuple[int, ...], tokenizer: Tokenizer, patches: int
) -> None:
    """Writes the page of a step's batch; `rows` are the places of its rows in the global batch."""
    used = batch.segment_ids > 0
    targets = int((batch.loss_weights > 0).sum())
    slots = batch.images.shape[0] * batch.images.shape[1]
    pictures = sum(len(_slots(batch, row, patches)) for row in range(len(rows)))
    shown = range(min(len(rows), _MOST_ROWS))
    figures = [
        ("rows", f"{len(rows)} of {batch.tokens.shape[1]} tokens"),
        ("token places used", f"{used.mean():.1%}"),
        ("picture slots used", f"{pictures} of {slots}"),
        ("segments", sum(len(_segments(batch, row)) for row in range(len(rows)))),
        ("tokens that carry loss", f"{targets} ({targets / max(1, used.sum()):.1%} of those used)"),
    ]
    more = len(rows) - len(shown)
    body = fragment(
        element("h1", "The first batch"),
        element(
            "p",
            element("span", "Highlighted", class_="loss"),
            " tokens carry loss: the model learns to predict them. The others it only reads.",
            class_="tokens",
        ),
        table(("of this process's rows", ""), figures),
        *(_row(batch, row, rows[row], tokenizer, patches) for row in shown),
        element("p", f"{more} more rows are not shown.", class_="soft") if more else "",
    )
    write_text(path, page("The first batch", body, style=_STYLE))


def _segments(batch: Batch, row: int) -> list[int]:
    return [int(i) for i in np.unique(batch.segment_ids[row]) if i > 0]


def _slots(batch: Batch, row: int, patches: int) -> list[int]:
    index = batch.vision_index[row]
    return [int(slot) for slot in np.unique(index[index >= 0] // patches)]


def _row(batch: Batch, row: int, place: int, tokenizer: Tokenizer, patches: int) -> Html:
    used = int((batch.segment_ids[row] > 0).sum())
    length = batch.tokens.shape[1]
    pictures = [
        element(
            "figure",
            element("img", src=_uri(batch.images[row, slot]), alt=f"picture {slot + 1}"),
            element("figcaption", f"picture {slot + 1}", class_="small"),
        )
        for slot in _slots(batch, row, patches)
    ]
    segments = [_segment(batch, row, each, tokenizer, patches) for each in _segments(batch, row)]
    return element(
        "section",
        element("h2", f"Row {place + 1}: {used} of {length} tokens ({used / length:.1%})"),
        element("div", *pictures, class_="pictures"),
        *segments,
    )


def _segment(batch: Batch, row: int, segment: int, tokenizer: Tokenizer, patches: int) -> Html:
    runs = list(segment_runs(batch, row, segment, tokenizer, patches))
    count = sum(run.tokens for run in runs)
    targets = sum(run.tokens for run in runs if run.weight > 0)
    bad = "" if targets else " (nothing to learn: its record failed, or it has no answer)"
    return element(
        "div",
        element("h3", f"Segment {segment}: {count} tokens, {targets} carry loss{bad}"),
        element("p", *map(_shown, runs), class_="tokens"),
        class_="segment",
    )


def _shown(run: Run) -> Html:
    if run.picture >= 0:
        text = f"picture {run.picture + 1}: {run.tokens} patches"
        return element("span", text, class_="picture")
    if run.weight > 0:
        weight = None if run.weight == 1 else f"weight {run.weight:g}"
        return element("span", run.text, class_="loss", title=weight)
    return element("span", run.text, class_="plain")


def _uri(pixels: UInt8[np.ndarray, "Y X 3"]) -> str:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return data_uri(target.getvalue())
