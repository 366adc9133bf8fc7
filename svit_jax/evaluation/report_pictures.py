"""The report's pictures: the gallery of answers, and the boxes of referring answers drawn in."""

import io
from collections.abc import Sequence

from PIL import Image

from data_pipeline.common.boxes import NormalBox
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.html import Html, data_uri, element, fragment
from svit_jax.evaluation.archives import readable
from svit_jax.evaluation.gallery import GalleryItem, ReferringItem
from svit_jax.evaluation.grounding import IOU_THRESHOLD

_PADDING = "rgb(122,116,104)"  # what training pads pictures with, so boxes lie where the model saw
_THUMBNAIL = 480
PICTURE_STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: 1.75rem 1.25rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.referring { grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); }
.gallery li { min-width: 0; overflow-wrap: anywhere; font-size: .875rem; line-height: 1.4; }
.gallery img, .gallery svg { width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--panel); margin-bottom: .5rem; }
.gallery p { margin: .2rem 0; }
.gallery .question { font-weight: 600; }
.gallery .kind { color: var(--soft); font-size: .8125rem; }
.box { fill: none; stroke-width: 3; vector-effect: non-scaling-stroke; }
.halo { fill: none; stroke: #fff; stroke-width: 5; stroke-opacity: .8;
  vector-effect: non-scaling-stroke; }
.predicted { stroke: #c2185b; }
.true { stroke: #0d47a1; stroke-dasharray: 7 5; }
.swatch { display: inline-block; width: 1.6rem; margin: 0 .35rem 0 0; vertical-align: middle;
  border-top: 3px solid #c2185b; }
.swatch.dashed { border-top: 3px dashed #4f86e0; margin-left: 1rem; }
"""


def gallery_section(items: Sequence[GalleryItem]) -> Html:
    """A card for each item: picture, question, answer, verdict; nothing without items.

    Raises BadRecordError where a picture is missing or broken.
    """
    if not items:
        return Html("")
    return fragment(
        element("h2", "Held-out pictures, questions and answers"),
        element(
            "p",
            "Drawn by seed from all kinds; wrong answers are shown more often than they occur.",
        ),
        element("ul", *(_card(item) for item in items), class_="gallery"),
    )


def _card(item: GalleryItem) -> Html:
    mark = ("\u2713 right", "right") if item.correct else ("\u2717 wrong", "wrong")
    kind = item.kind.replace("_", " ") + (", novel combination" if item.novel else "")
    return element(
        "li",
        element(
            "img",
            src=data_uri(readable(item.image), longest_side=_THUMBNAIL),
            alt=f"The picture to the question: {item.question}",
        ),
        element("p", item.question, class_="question"),
        element("p", f"{item.answer or '(no answer)'} ", element("span", mark[0], class_=mark[1])),
        None if item.correct else element("p", f"Truth: {item.truth}"),
        element("p", f"{item.benchmark}: {kind}", class_="kind"),
    )


def referring_section(items: Sequence[ReferringItem]) -> Html:
    """The padded pictures with predicted (solid) and true (dashed) boxes; nothing without items.

    Raises BadRecordError where a picture is missing or broken.
    """
    if not items:
        return Html("")
    return fragment(
        element("h2", "Referring answers"),
        element(
            "p",
            element("i", class_="swatch"),
            "predicted",
            element("i", class_="swatch dashed"),
            "true. Pictures are padded to a square as the model sees them; boxes are fractions "
            "of that square.",
        ),
        element("ul", *(_boxed(item) for item in items), class_="gallery referring"),
    )


def _boxed(item: ReferringItem) -> Html:
    source = readable(item.image)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            width, height = picture.size
    except OSError:
        raise BadRecordError(f"picture {item.image} cannot be opened for the report.") from None
    side = max(width, height)
    truth = ", ".join(map(str, (list(box) for box in item.truth)))
    drawing = element(
        "svg",
        element("rect", width=side, height=side, fill=_PADDING),
        element(
            "image",
            href=data_uri(source, longest_side=_THUMBNAIL),
            x=(side - width) // 2,
            y=(side - height) // 2,
            width=width,
            height=height,
        ),
        *(_rectangle(box, side, "halo") for box in (*item.predicted, *item.truth)),
        *(_rectangle(box, side, "box predicted") for box in item.predicted),
        *(_rectangle(box, side, "box true") for box in item.truth),
        viewBox=f"0 0 {side} {side}",
        role="img",
        aria_label=f"Picture with predicted and true boxes for: {item.question}",
    )
    good = item.score >= IOU_THRESHOLD
    mark = ("\u2713" if good else "\u2717") + f" IoU {item.score:.2f}"
    return element(
        "li",
        drawing,
        element("p", item.question, class_="question"),
        element(
            "p",
            f"{item.answer or '(no answer)'} ",
            element("span", mark, class_="right" if good else "wrong"),
        ),
        element("p", f"Truth: {truth}", class_="kind"),
    )


def _rectangle(box: NormalBox, side: int, style: str) -> Html:
    return element(
        "rect",
        class_=style,
        x=f"{min(box.x1, box.x2) * side:.1f}",
        y=f"{min(box.y1, box.y2) * side:.1f}",
        width=f"{abs(box.x2 - box.x1) * side:.1f}",
        height=f"{abs(box.y2 - box.y1) * side:.1f}",
    )
