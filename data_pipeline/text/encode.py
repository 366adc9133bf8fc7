"""Token ids, loss weights and picture places of one dialogue, built segment by segment."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32

from data_pipeline.common.dialogue import Turn
from data_pipeline.text.templates import Segment, Template, render, render_prompt
from data_pipeline.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Encoded:
    """n tokens of one dialogue with `pictures` pictures of P patch tokens each.

    tokens: ids, bos first; a picture's P places carry the pad id.
    loss_weights: 1 on every token of a reply and on its eos, unless the reply is empty, else 0;
      belongs to tokens[t] as the thing predicted from t-1, so it is 0 at t = 0.
    vision_index: -1 for text, else m * P + p for patch p of the dialogue's picture m.
    pictures: how many the dialogue shows, cut-off ones too.
    truncated: whether tokens were cut off at the length limit.
    """

    tokens: Int32[np.ndarray, "n"]
    loss_weights: Float32[np.ndarray, "n"]
    vision_index: Int32[np.ndarray, "n"]
    pictures: int
    truncated: bool


def _ids(segment: Segment, template: Template, tokenizer: Tokenizer) -> list[int]:
    if segment.kind == "eos":
        return [tokenizer.eos_id]
    if segment.join == "start" or (segment.join == "after_eos" and template.after_eos == "legacy"):
        return tokenizer.encode(segment.text)
    if segment.join == "after_eos" and template.after_eos == "4.31":
        return tokenizer.encode_without_mark(segment.text)
    return tokenizer.encode(segment.text, dummy_prefix=False)


def _count(segment: Segment, template: Template, tokenizer: Tokenizer) -> int:
    """The length of `_ids`, without making them where that can be told."""
    if segment.kind == "eos":
        return 1
    if segment.join == "after_eos":
        return _fixed_length(segment, template, tokenizer)
    return tokenizer.count(segment.text, dummy_prefix=segment.join == "start")


@functools.lru_cache(maxsize=16)
def _fixed_length(segment: Segment, template: Template, tokenizer: Tokenizer) -> int:
    return len(_ids(segment, template, tokenizer))


def _encode(
    segments: Sequence[Segment],
    template: Template,
    tokenizer: Tokenizer,
    patches: int,
    max_length: int | None,
) -> Encoded:
    tokens = [tokenizer.bos_id]
    losses = [(1, 0.0)]
    picture_starts = []
    for segment in segments:
        if segment.kind == "image":
            picture_starts.append(len(tokens))
            ids = [tokenizer.pad_id] * patches
        else:
            ids = _ids(segment, template, tokenizer)
        tokens += ids
        losses.append((len(ids), float(segment.loss)))
    vision_index = np.full(len(tokens), -1, np.int32)
    for m, start in enumerate(picture_starts):
        vision_index[start : start + patches] = np.arange(m * patches, (m + 1) * patches)
    counts, weights = zip(*losses, strict=True)
    loss_weights = np.repeat(np.array(weights, np.float32), counts)
    kept = len(tokens) if max_length is None else min(max_length, len(tokens))
    return Encoded(
        np.array(tokens[:kept], np.int32),
        loss_weights[:kept],
        vision_index[:kept],
        pictures=len(picture_starts),
        truncated=kept < len(tokens),
    )


def encode_dialogue(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: Tokenizer,
    patches: int,
    max_length: int | None = None,
    has_picture: bool = True,
) -> Encoded:
    """A training sample: loss on each reply and its eos, cut off at `max_length` tokens.

    `patches` is P, the tokens a picture takes. `has_picture` False makes a literal "<image>"
    ordinary text. Raises BadRecordError as `templates.render` does.
    """
    segments = render(turns, template, has_picture)
    return _encode(segments, template, tokenizer, patches, max_length)


def encode_prompt(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: Tokenizer,
    patches: int,
    has_picture: bool = True,
) -> Encoded:
    """All before the answer, ready for generation: a prefix of the training sample's tokens.

    The last turn is the human's. Raises BadRecordError as `templates.render_prompt` does.
    """
    segments = render_prompt(turns, template, has_picture)
    return _encode(segments, template, tokenizer, patches, max_length=None)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Sizes of one dialogue. `first_target` is the place of the first token with loss, `tokens`
    where there is none."""

    tokens: int
    pictures: int
    first_target: int


def measure_dialogue(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: Tokenizer,
    patches: int,
    has_picture: bool = True,
) -> Measured:
    """The sizes of what `encode_dialogue` would give without a limit, making no arrays."""
    tokens, pictures, first_target = 1, 0, None
    for segment in render(turns, template, has_picture):
        if segment.loss and first_target is None:
            first_target = tokens
        if segment.kind == "image":
            pictures += 1
            tokens += patches
        else:
            tokens += _count(segment, template, tokenizer)
    return Measured(tokens, pictures, tokens if first_target is None else first_target)
