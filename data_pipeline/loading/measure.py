"""How long every dialogue is, before any picture is opened."""

import array
from collections import Counter
from collections.abc import Mapping

import numpy as np

from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.packing import Sizes
from data_pipeline.loading.source import DialogueSource
from data_pipeline.text.encode import Measured, measure_dialogue
from data_pipeline.text.oddities import ODDITIES, find_oddities
from data_pipeline.text.templates import Template
from data_pipeline.text.tokenizer import Tokenizer

COUNTED = {
    **ODDITIES,
    "truncated": "cut off at the most tokens of one",
    "nothing_to_learn": "without a token to learn from",
}
"""What is counted of a dataset, and how it is said of "n dialogues"."""

_LEFT_OUT = Measured(0, 0, 0)


def measure_dialogues(
    source: DialogueSource,
    tokenizer: Tokenizer,
    template: Template,
    patches: int,
    cut: int,
    quarantine: Quarantine | None = None,
) -> tuple[Sizes, Mapping[str, int]]:
    """The sizes of all dialogues, no longer than `cut`, and how many have each oddity.

    One that the template can't write has 0 tokens and goes to `quarantine` with its reason;
    without a quarantine its BadRecordError is raised.
    """
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    dialogues, tokens, pictures, words = (array.array("i") for _ in range(4))
    for entry in progress(source.entries, "measuring dialogues", len(source), "record"):
        has_picture = bool(entry.image_id)
        dialogues.append(len(entry.dialogues))
        for dialogue in entry.dialogues:
            size = _LEFT_OUT
            try:
                size = measure_dialogue(dialogue.turns, template, tokenizer, patches, has_picture)
            except BadRecordError as error:
                if quarantine is None:
                    raise BadRecordError(f"dialogue {dialogue.id}: {error}") from None
                quarantine.add(dialogue.id, str(error))
            else:
                counts.update(find_oddities(dialogue.turns, template, has_picture))
                counts["truncated"] += size.tokens > cut
                counts["nothing_to_learn"] += size.first_target >= min(size.tokens, cut)
            tokens.append(min(size.tokens, cut))
            pictures.append(size.pictures)
            spoken = max(1, sum(len(turn.text.split()) for turn in dialogue.turns))
            words.append(spoken if has_picture else -spoken)
    columns = (np.array(numbers, np.int32) for numbers in (dialogues, tokens, pictures, words))
    return Sizes(*columns), dict(counts)
