"""What a tokenizer is trained on: dialogues as a template writes them out."""

import itertools
from collections.abc import Iterable, Iterator

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.text.templates import V1, Template, render


def training_texts(dialogues: Iterable[Dialogue], template: Template = V1) -> Iterator[str]:
    """Yields each dialogue's text, system prompt and roles included, pictures left out; a line ends
    where the end-of-sequence token would stand, so that no piece reaches across it."""
    for dialogue in dialogues:
        segments = render(dialogue.turns, template)
        yield "".join("\n" if segment.kind == "eos" else segment.text for segment in segments)


def spread(dialogues: Iterable[Dialogue], total: int, most: int) -> Iterator[Dialogue]:
    """At most `most` of `total` dialogues, one for every so many of them: training a tokenizer
    holds its text in memory several times over."""
    return itertools.islice(dialogues, 0, None, max(1, -(-total // most)))
