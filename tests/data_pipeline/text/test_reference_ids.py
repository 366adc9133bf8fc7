"""Ids and labels against those that transformers 4.31.0 and 4.37.2 gave (tests/reference)."""

import json

import pytest
from llava_text import differences, tricky_conversations
from our_text import check_targets, ids_and_labels, our_sample
from stored_text import CAPTIONS, FIXTURE, SMALL_MODEL, digest, small_conversations

from data_pipeline.common.dialogue import Turn
from data_pipeline.text.encode import encode_dialogue
from data_pipeline.text.templates import get_template
from data_pipeline.text.tokenizer import Tokenizer

BEHAVIOURS = ["legacy", "4.31", "4.37"]


@pytest.fixture(scope="module")
def stored():
    return json.loads(FIXTURE.read_text())


@pytest.fixture(scope="module")
def small():
    return Tokenizer(SMALL_MODEL)


@pytest.mark.parametrize("after_eos", BEHAVIOURS)
def test_fifty_conversations_on_a_small_tokenizer(stored, small, after_eos):
    compared = 0
    for conversation, (ids, targets, masked) in zip(
        small_conversations(), stored[after_eos]["small"], strict=True
    ):
        sample = our_sample(conversation, small, after_eos)
        check_targets(sample, conversation, small)
        if differences(conversation):
            continue
        ours, labels = ids_and_labels(sample)
        assert not masked and ours == ids, conversation
        assert [n for n, label in enumerate(labels) if label != -100] == targets, conversation
        compared += 1
    assert compared >= 30


def test_the_behaviours_differ_on_the_small_tokenizer(stored):
    later = [stored[after_eos]["small"][1][0] for after_eos in BEHAVIOURS]
    assert len({tuple(ids) for ids in later}) == 3


@pytest.mark.parametrize("after_eos", BEHAVIOURS)
def test_captions(stored, small, after_eos):
    template = get_template("plain", after_eos)
    for caption, ids in zip(CAPTIONS, stored[after_eos]["captions"], strict=True):
        dialogue = (Turn("human", "<image>\nDescribe it."), Turn("gpt", caption))
        ours, labels = ids_and_labels(encode_dialogue(dialogue, template, small, patches=1))
        assert (ours, labels) == (ids, [-100, -100, *ids[2:]]), caption


@pytest.mark.parametrize("after_eos", BEHAVIOURS)
def test_a_thousand_conversations_on_llamas_tokenizer(stored, real_data, after_eos):
    llama = Tokenizer(real_data / "tokenizers" / "llama2.model")
    compared = 0
    for conversation, expected in zip(
        tricky_conversations(0, 1000), stored[after_eos]["thousand"], strict=True
    ):
        sample = our_sample(conversation, llama, after_eos)
        check_targets(sample, conversation, llama)
        if not differences(conversation):
            assert digest(*ids_and_labels(sample)) == expected, conversation
            compared += 1
    assert compared >= 700
