"""What a tokenizer is trained on: dialogues as a template writes them out."""

from collections.abc import Iterable, Iterator

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.text.templates import V1, Template, render


def training_texts(dialogues: Iterable[Dialogue], template: Template = V1) -> Iterator[str]:
    """Yields each dialogue's text, system prompt and roles included, pictures left out; a line ends
    where the end-of-sequence token would stand, so that no piece reaches across it."""
    for dialogue in dialogues:
        segments = render(dialogue.turns, template)
        yield "".join("\n" if segment.kind == "eos" else segment.text for segment in segments)
