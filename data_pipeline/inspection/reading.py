"""How a training run reads dialogues: tokens, what is cut off, what carries loss."""

import dataclasses
from collections.abc import Sequence

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import UserError
from data_pipeline.text.encode import encode_dialogue
from data_pipeline.text.templates import Template
from data_pipeline.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """Of one dialogue: all its `tokens`, those `kept` in a row, those with loss among them
    (`learned`) and those of its picture (`patches`)."""

    tokens: int
    kept: int
    learned: int
    patches: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """What decides a dialogue's tokens; `patches` is P, the tokens that a picture takes."""

    tokenizer: Tokenizer
    template: Template
    patches: int
    row_length: int

    def __post_init__(self) -> None:
        for name, least in (("patches", 1), ("row_length", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}.")

    def counts(self, turns: Sequence[Turn], has_picture: bool) -> TokenCounts:
        """Raises BadRecordError where the template can't write the dialogue."""
        encoded = encode_dialogue(
            turns, self.template, self.tokenizer, self.patches, has_picture=has_picture
        )
        kept = slice(self.row_length)
        return TokenCounts(
            len(encoded.tokens),
            min(len(encoded.tokens), self.row_length),
            int((encoded.loss_weights[kept] > 0).sum()),
            int((encoded.vision_index[kept] >= 0).sum()),
        )
