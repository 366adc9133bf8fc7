"""Ids and loss weights against golden ids taken from the reference, and against one encoding of
the whole conversation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.text.encode import (
    Measured,
    encode_dialogue,
    encode_prompt,
    measure_dialogue,
)
from data_pipeline.text.templates import LLAVA_V1, PLAIN, V1, get_template
from data_pipeline.text.tokenizer import Tokenizer, train_tokenizer

SYSTEM = [
    *[1, 319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889, 450, 20255],
    *[4076, 8444, 29892, 13173, 29892, 322, 1248, 568, 6089, 304, 278, 1404, 29915, 29879, 5155],
    29889,
]
USER, ASSISTANT = [3148, 1001, 29901], [319, 1799, 9047, 13566, 29901]
WHAT_IS_THIS, A_CAT = [1724, 338, 445, 29973], [319, 6635, 29889, 2]


@pytest.fixture(scope="module")
def llama(real_data):
    return Tokenizer(real_data / "tokenizers" / "llama2.model")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    texts = ["USER: What is this? ASSISTANT: A cat, at 0.125. Who are you? I am a mat."] * 9
    return train_tokenizer(texts, tmp_path_factory.mktemp("t") / "t.model", 300)


def turns(*texts):
    return tuple(Turn("gpt" if n % 2 else "human", text) for n, text in enumerate(texts))


def with_picture(ids, patches=3):
    """Golden ids write a picture as -200; ours is P pad ids."""
    return [out for i in ids for out in ([0] * patches if i == -200 else [i])]


def test_v1_prompt_and_reply(llama):
    golden = [*SYSTEM, *USER, 29871, -200, 29871, 13, 5618, 338, 445, 29973, *ASSISTANT]
    assert golden.index(-200) == 35
    prompt = encode_prompt(turns("<image>\nWhat is this?"), V1, llama, 3)
    assert prompt.tokens.tolist() == with_picture(golden)
    sample = encode_dialogue(turns("<image>\nWhat is this?", "A cat."), V1, llama, 3)
    assert sample.tokens.tolist() == with_picture([*golden, *A_CAT])
    assert sample.loss_weights.tolist() == [0.0] * len(with_picture(golden)) + [1.0] * 4
    expected = np.full(len(sample.tokens), -1)
    expected[35:38] = [0, 1, 2]
    np.testing.assert_array_equal(sample.vision_index, expected)
    assert (sample.pictures, sample.truncated) == (1, False)


def test_text_only(llama):
    sample = encode_dialogue(turns("What is this?", "A cat."), V1, llama, 3)
    assert sample.tokens.tolist() == [*SYSTEM, *USER, *WHAT_IS_THIS, *ASSISTANT, *A_CAT]
    assert (sample.vision_index == -1).all()


def test_plain(llama):
    caption = turns("<image>\nDescribe it.", "a cat on a mat")
    sample = encode_dialogue(caption, PLAIN, llama, 3)
    golden = [1, -200, 263, 6635, 373, 263, 1775, 13]
    assert sample.tokens.tolist() == with_picture(golden)
    assert sample.loss_weights.tolist() == [0.0] * 4 + [1.0] * 6
    assert encode_prompt(caption[:1], PLAIN, llama, 3).tokens.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("after_eos", "ids"),
    [
        ("legacy", [3148, 1001, 29901]),
        ("4.31", [3308, 1001, 29901]),
        ("4.37", [11889, 29901]),
    ],
)
def test_the_user_after_eos(llama, after_eos, ids):
    template = get_template("v1", after_eos)
    sample = encode_dialogue(turns("What is this?", "A cat.", "Is", "A cat."), template, llama, 3)
    second = [*ids, 1317, *ASSISTANT]
    first = [*SYSTEM, *USER, *WHAT_IS_THIS, *ASSISTANT]
    assert sample.tokens.tolist() == [*first, *A_CAT, *second, *A_CAT]
    weights = [0.0] * len(first) + [1.0] * 4 + [0.0] * len(second) + [1.0] * 4
    assert sample.loss_weights.tolist() == weights


def test_an_empty_answer_stands_there_without_loss(llama):
    asked = [*SYSTEM, *USER, *WHAT_IS_THIS, *ASSISTANT]
    sample = encode_dialogue(turns("What is this?", ""), V1, llama, 3)
    assert sample.tokens.tolist() == [*asked, 2]
    assert not sample.loss_weights.any()
    sample = encode_dialogue(turns("What is this?", "", "Is", "A cat."), V1, llama, 3)
    assert sample.tokens.tolist() == [*asked, 2, 3308, 1001, 29901, 1317, *ASSISTANT, *A_CAT]
    assert sample.loss_weights.tolist() == [0.0] * (len(sample.tokens) - 4) + [1.0] * 4


def test_the_default_is_what_the_checkpoints_saw():
    assert V1.after_eos == get_template("vicuna_v1").after_eos == "4.31"


def test_llava_v1_says_human(llama):
    text = llama.decode(encode_prompt(turns("Hi"), LLAVA_V1, llama, 3).tokens.tolist())
    assert text == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions. USER: Hi ASSISTANT:"
    )


def test_a_literal_marker_in_a_text_only_sample_is_text(llama):
    sample = encode_dialogue(turns("<image> what", "no"), V1, llama, 3, has_picture=False)
    start = len(SYSTEM) + len(USER)
    assert sample.tokens[start : start + 3].tolist() == [529, 3027, 29958]
    assert sample.pictures == 0


@pytest.mark.parametrize("text", ["What is this?\n<image>", " <image> What is this? "])
def test_the_marker_moves_to_the_front(llama, text):
    a = encode_prompt(turns(text), V1, llama, 2)
    b = encode_prompt(turns("<image>\nWhat is this?"), V1, llama, 2)
    assert a.tokens.tolist() == b.tokens.tolist()


def test_several_pictures_in_and_across_turns(llama):
    sample = encode_dialogue(
        turns("a <image> b <image>", "A cat.", "<image>\nIs", "A cat."), V1, llama, 2
    )
    assert sample.pictures == 3
    places = np.flatnonzero(sample.vision_index >= 0)
    assert sample.vision_index[places].tolist() == [0, 1, 2, 3, 4, 5]
    assert (sample.tokens[places] == 0).all()
    # Between the first two stands "\n" as a chunk of its own, after the third one "\nIs".
    assert sample.tokens[places[1] + 1 : places[2]].tolist() == [29871, 13]
    assert sample.tokens[places[-1] + 1 :][:3].tolist() == llama.encode("\nIs")


def test_truncation_cuts_everything_alike(small):
    dialogue = turns("<image>\nWhat is this?", "A cat.")
    whole = encode_dialogue(dialogue, V1, small, 5)
    n = len(whole.tokens)
    cut = encode_dialogue(dialogue, V1, small, 5, max_length=n - 2)
    assert cut.truncated and not whole.truncated
    for field in ("tokens", "loss_weights", "vision_index"):
        np.testing.assert_array_equal(getattr(cut, field), getattr(whole, field)[: n - 2])
    assert not encode_dialogue(dialogue, V1, small, 5, max_length=n).truncated


words = st.text("aWe .,?0\n 1é<>", max_size=20)


@settings(max_examples=60, deadline=None)
@given(question=words, reply=words.filter(bool))
def test_segments_join_to_the_encoding_of_the_whole_chunk(llama, question, reply):
    """The reference encodes the text up to "</s>" in one go; so must the segments come out."""
    sample = encode_dialogue(turns(question, reply), V1, llama, 3)
    whole = llama.encode(f"{V1.system} USER: {question} ASSISTANT: {reply}")
    assert sample.tokens.tolist() == [1, *whole, 2]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text("ab <>image", max_size=12) | st.just("<image>x"), min_size=1, max_size=5
    ),
    has_picture=st.booleans(),
)
def test_prompt_is_a_prefix_and_measuring_agrees(small, texts, has_picture):
    dialogue = turns(*texts)
    sample = encode_dialogue(dialogue, V1, small, 4, has_picture=has_picture)
    targets = np.flatnonzero(sample.loss_weights).tolist()
    assert measure_dialogue(dialogue, V1, small, 4, has_picture) == Measured(
        len(sample.tokens), sample.pictures, targets[0] if len(targets) else len(sample.tokens)
    )
    assert sample.loss_weights[0] == 0
    asked = dialogue[: len(dialogue) - 1 + len(dialogue) % 2]
    prompt = encode_prompt(asked, V1, small, 4, has_picture=has_picture)
    answered = encode_dialogue((*asked, Turn("gpt", "a")), V1, small, 4, has_picture=has_picture)
    np.testing.assert_array_equal(prompt.tokens, answered.tokens[: len(prompt.tokens)])
    assert answered.loss_weights[len(prompt.tokens) :].all()


def test_a_first_turn_from_gpt_is_dropped(small):
    opening = (Turn("gpt", "Hello."), *turns("What is this?", "A cat."))
    a, b = (encode_dialogue(d, V1, small, 3).tokens for d in (opening, opening[1:]))
    np.testing.assert_array_equal(a, b)


def test_bad_dialogues_say_what_is_wrong(small):
    with pytest.raises(BadRecordError, match="turn 2 is from human, expected gpt"):
        encode_dialogue((Turn("human", "a"), Turn("human", "b")), V1, small, 3)
    with pytest.raises(BadRecordError, match="empty dialogue"):
        encode_dialogue((), V1, small, 3)
    with pytest.raises(BadRecordError, match="must end with a human turn"):
        encode_prompt(turns("a", "b"), V1, small, 3)
    with pytest.raises(BadRecordError, match="found 2 turns and 0 pictures"):
        encode_dialogue(turns("a", "b"), PLAIN, small, 3)
    with pytest.raises(UserError, match="no template 'v2'; choose one of v1"):
        get_template("v2")
    # The type checker of the test run would refuse the value before the code sees it.
    unchecked = getattr(get_template, "__wrapped__", get_template)
    with pytest.raises(UserError, match=r"'4\.3', which is unknown; choose one of legacy"):
        unchecked("v1", "4.3")


def test_fingerprints_tell_templates_apart():
    templates = [V1, LLAVA_V1, PLAIN, get_template("v1", "legacy")]
    assert len({template.fingerprint for template in templates}) == 4
    assert dataclasses.replace(V1).fingerprint == V1.fingerprint
