"""Our samples in the reference's form, and what has to hold where the two differ on purpose."""

from llava_text import IGNORED, IMAGE, MAX_LENGTH, Conversation

from data_pipeline.common.dialogue import Turn
from data_pipeline.text.encode import Encoded, encode_dialogue
from data_pipeline.text.templates import get_template
from data_pipeline.text.tokenizer import Tokenizer


def turns(conversation: Conversation) -> tuple[Turn, ...]:
    roles = ("human", "gpt")
    return tuple(Turn(roles[n % 2], text) for n, text in enumerate(conversation.texts))


def our_sample(conversation: Conversation, tokenizer: Tokenizer, after_eos: str) -> Encoded:
    """With pictures of one token, cut off where the reference cuts."""
    return encode_dialogue(
        turns(conversation),
        get_template("v1", after_eos),
        tokenizer,
        patches=1,
        max_length=MAX_LENGTH,
        has_picture=conversation.image,
    )


def ids_and_labels(sample: Encoded) -> tuple[list[int], list[int]]:
    rows = zip(sample.tokens, sample.loss_weights, sample.vision_index, strict=True)
    ids, labels = [], []
    for token, weight, patch in rows:
        ids.append(int(token) if patch < 0 else IMAGE)
        labels.append(int(token) if weight else IGNORED)
    return ids, labels


def check_targets(sample: Encoded, conversation: Conversation, tokenizer: Tokenizer) -> None:
    """The tokens with loss are the answers, each with its end, and nothing else."""
    said = []
    run: list[int] = []
    for token, weight in zip(sample.tokens.tolist(), sample.loss_weights, strict=True):
        if weight:
            run.append(token)
            if token == tokenizer.eos_id:
                # A marker in front: decoding takes one space away, and the template's is there.
                said.append(tokenizer.decode(run))
                run = []
        else:
            assert not run
    # The mark of a word's start can't be told from a space.
    answers = [text.replace("▁", " ") for text in conversation.texts[1::2] if text]
    if sample.truncated:
        assert answers[: len(said)] == said
    else:
        assert answers == said and not run
