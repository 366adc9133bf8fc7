"""Ids and labels of a thousand conversations against the installed transformers' tokenizers.

What each release can produce: the slow (SentencePiece) LlamaTokenizer of transformers 4 reads the
"USER" after a "</s>" in the "legacy" and the "4.37" way. Transformers 5 has its base class alone,
SentencePieceBackend: a non-legacy LlamaTokenizer adds one rule to it (a mark in front of a text),
which stands here. No release since 4.31 reads it in the "4.31" way: here the mark is taken off
the legacy tokenizer's first piece after a "</s>", which is all that 4.31 did differently. The ids
of the true 4.31.0 and 4.37.2 are in tests/reference/text.json.
"""

import collections
import re
import shutil

import pytest
from llava_text import (
    Conversation,
    Tokenize,
    differences,
    tricky_conversations,
    v1_sample,
)
from our_text import ids_and_labels, our_sample

from data_pipeline.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
BEHAVIOURS = ["legacy", "4.31", "4.37"]
MARK = "▁"
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    return tricky_conversations(0, 1000)


@pytest.fixture(scope="module")
def model(real_data) -> str:
    return str(real_data / "tokenizers" / "llama2.model")


def slow_tokenizer(model: str, legacy: bool):
    if int(transformers.__version__.split(".")[0]) < 5:
        return transformers.LlamaTokenizer(model, legacy=legacy, **SPECIAL)
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    class Llama(SentencePieceBackend):
        vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012  as its class wants it

        def tokenize(self, text, **options):
            if self.legacy or not text:
                return super().tokenize(text, **options)
            pieces = super().tokenize(MARK + text.replace(MARK, " "), **options)
            lonely = len(pieces) > 1 and pieces[0] == MARK and pieces[1] in self.all_special_tokens
            return pieces[1:] if lonely else pieces

    return Llama(vocab_file=model, legacy=legacy, **SPECIAL)


def tokenize_as(after_eos: str, model: str) -> Tokenize:
    tokenizer = slow_tokenizer(model, legacy=after_eos != "4.37")

    def pieces(text: str) -> list[str]:
        found = tokenizer.tokenize(text)
        if after_eos != "4.31":
            return found
        for place in range(1, len(found)):
            # SentencePiece never splits "</s>" off by itself: where it stands, it was special.
            if found[place - 1] == "</s>" and found[place].startswith(MARK):
                found[place] = found[place].removeprefix(MARK)
        return [piece for piece in found if piece]

    return lambda text: [1, *tokenizer.convert_tokens_to_ids(pieces(text))]


@pytest.mark.parametrize("after_eos", BEHAVIOURS)
def test_ids_and_labels_of_a_thousand_conversations(conversations, model, after_eos):
    ours, tokenize = Tokenizer(model), tokenize_as(after_eos, model)
    seen: collections.Counter[str] = collections.Counter()
    for conversation in conversations:
        reference = v1_sample(conversation, tokenize, correction=after_eos == "4.37")
        found = ids_and_labels(our_sample(conversation, ours, after_eos))
        apart = differences(conversation)
        if apart == {"collapse"}:
            reference = v1_sample(conversation, tokenize, after_eos == "4.37", collapse=False)
            apart = set()
        if not apart:
            assert not reference.masked
            assert found == (reference.ids, reference.labels), conversation
        elif apart == {"role"}:
            # The text is the same; the reference cannot tell whose it is, and mostly masks it all.
            assert found[0] == reference.ids
        seen["equal" if not apart else "masked" if reference.masked else "apart"] += 1
    assert seen["equal"] >= 750 and seen["masked"] >= 150
    assert seen["apart"] <= 40
    print(after_eos, dict(seen))


def test_the_reference_masks_what_it_cant_split(model):
    """What docs/model_inputs.md says of the reference where our samples differ from its."""
    tokenize = tokenize_as("4.31", model)

    def labels(*texts: str) -> tuple[bool, int]:
        sample = v1_sample(Conversation(texts, image=False), tokenize, correction=False)
        return sample.masked, sum(label != -100 for label in sample.labels)

    assert labels("Is", "A cat.") == (False, 4)
    assert labels("Is", "") == (True, 0)
    assert labels("", "A cat.") == (True, 0)
    assert labels("Is", "I am ASSISTANT: yes") == (True, 0)
    assert labels("Is", "A </s> cat.") == (True, 0)
    assert labels("Is <unk>", "A cat.") == (True, 0)
    assert labels("Is", "A cat.", "Is") == (True, 0)
    # Not masked: with a question that ends so, the loss begins inside it.
    assert labels("Is ASSISTANT:", "A cat.") == (False, 4 + len(["▁A", "SS", "IST", "ANT", ":"]))
    # Not masked: an empty answer that a reply follows; the turns before that reply run together.
    assert labels("Is", "", "Is", "A cat.") == (False, 4)


def test_todays_tokenizer_gives_the_ids_of_4_37(conversations, model, tmp_path):
    """In ordinary text. Runs of spaces apart: transformers 5 has Llama's merges in another order
    than SentencePiece, and takes "▁▁", "house" where the checkpoints saw "▁", "▁house"."""
    shutil.copy(model, tmp_path / "tokenizer.model")
    tokenizer = transformers.LlamaTokenizer.from_pretrained(tmp_path, legacy=False)
    ours = Tokenizer(model)

    def tokenize(text: str) -> list[int]:
        return [1, *tokenizer(text, add_special_tokens=False).input_ids]

    compared = 0
    for conversation in conversations:
        single = [re.sub(f"[ {MARK}]+", " ", text).strip(" ") for text in conversation.texts]
        conversation = Conversation(tuple(single), conversation.image)
        # A chunk that begins with a space makes a run with the mark in front of it.
        if differences(conversation) or not all(
            text.replace("<image>", "").strip() for text in single
        ):
            continue
        reference = v1_sample(conversation, tokenize, correction=True)
        assert ids_and_labels(our_sample(conversation, ours, "4.37"))[0] == reference.ids
        compared += 1
    assert compared >= 700
