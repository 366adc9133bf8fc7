"""The tokenizer reads Llama's model as transformers does, and trains small ones the same way."""

import pickle
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.common.errors import UserError
from data_pipeline.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    f"USER: Where is the {thing}? ASSISTANT: The {thing} is at [0.125, 0.5, 0.75, 0.{n}]."
    for thing in ("cat", "dog", "red ball")
    for n in range(10, 40)
]


@pytest.fixture(scope="module")
def llama(real_data):
    return Tokenizer(real_data / "tokenizers" / "llama2.model")


def test_llama_ids(llama):
    assert (llama.vocab_size, llama.bos_id, llama.eos_id, llama.pad_id) == (32000, 1, 2, 0)
    assert llama.encode("\nWhat") == [29871, 13, 5618]
    assert llama.encode(" A cat.", dummy_prefix=False) == [319, 6635, 29889]
    assert llama.encode("A cat.") == [319, 6635, 29889]
    assert llama.encode("") == []


def test_special_tokens_in_text_are_ordinary_text(llama):
    assert llama.encode("<image>") == [529, 3027, 29958]
    assert llama.eos_id not in llama.encode("the end</s>")


def test_the_word_start_mark_comes_off(llama):
    assert llama.encode_without_mark("USER:") == [3308, 1001, 29901]
    assert llama.encode_without_mark("") == []
    # "▁\n" is a bare mark and a byte: nothing is left of the mark.
    assert llama.encode_without_mark("\n") == [13]


def test_a_bare_piece_outside_the_vocabulary_falls_back(tmp_path):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "t.model", 420, whole_numbers=True)
    ids = tokenizer.encode_without_mark("USER:")
    assert tokenizer.pad_id not in ids
    assert tokenizer.decode(ids) == "USER:"


def test_decode_drops_special_tokens(llama):
    assert llama.decode([1, 319, 6635, 29889, 2]) == "A cat."


def in_order(tokenizer, ids):
    decoder = tokenizer.text_decoder()
    return "".join([*map(decoder.push, ids), decoder.finish()])


SNOW = "a ☃é😀\ufffd".encode()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        # Special ids, bytes (those of real characters above all), pieces, and ids that are none.
        st.integers(0, 2)
        | st.integers(3, 258)
        | st.sampled_from([3 + byte for byte in SNOW])
        | st.integers(259, 330),
        max_size=30,
    )
)
def test_ids_one_by_one_give_the_text_of_all(small, ids):
    assert small.vocab_size == 320
    assert in_order(small, ids) == small.decode(ids)


@given(st.text(max_size=40))
def test_a_text_comes_back_one_id_at_a_time(small, text):
    assert in_order(small, small.encode(text)) == small.decode(small.encode(text))


def test_a_character_comes_with_its_last_byte(small):
    decoder = small.text_decoder()
    assert [decoder.push(i) for i in small.encode("red ☃")][-3:] == ["", "", "☃"]


def test_decode_drops_ids_past_the_vocabulary(tmp_path):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "t.model", 300)
    ids = tokenizer.encode("a cat")
    assert tokenizer.decode([*ids[:1], 300, *ids[1:], 511]) == "a cat"


def test_a_reader_sees_every_token(llama):
    """319 "▁A", 6635 "▁cat"; "é" as its two bytes <0xC3> <0xA9>, which stand at byte + 3."""
    assert llama.shown([1, 319, 6635, 13, 2]) == "<s> A cat\n</s>"
    assert llama.shown([0xC3 + 3, 0xA9 + 3, 32000]) == "é<32000>"
    assert llama.shown([0xC3 + 3, 319]) == "\ufffd A"


def test_a_trained_model_follows_llamas_conventions(tmp_path):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "t.model", 350)
    assert tokenizer.vocab_size == 350
    assert tokenizer.encode("x\n")[-1] == 3 + ord("\n")
    text = "  two  spaces, é, 猫 and\nlines 0.125"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    digits = [tokenizer.encode(str(d), dummy_prefix=False)[0] for d in (0, 1, 2, 5)]
    assert tokenizer.encode("0125", dummy_prefix=False) == digits


def test_whole_numbers_become_one_piece(tmp_path):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "t.model", 420, whole_numbers=True)
    assert len(tokenizer.encode("[0.125,")) == 1
    assert len(tokenizer.encode("0.75,")) == 1


def test_training_is_deterministic_and_pickles(tmp_path):
    a = train_tokenizer(iter(TEXTS), tmp_path / "a.model", 350)
    b = train_tokenizer(iter(TEXTS), tmp_path / "b.model", 350)
    assert a.fingerprint == b.fingerprint
    other = train_tokenizer(random.Random(0).sample(TEXTS, 40), tmp_path / "c.model", 340)
    assert other.fingerprint != a.fingerprint
    assert len(pickle.dumps(a)) < 500
    assert pickle.loads(pickle.dumps(a)).encode("the cat") == a.encode("the cat")


def test_sentences_longer_than_sentencepiece_likes_are_kept(tmp_path):
    long = "zebra " * 2000
    tokenizer = train_tokenizer([*TEXTS, long], tmp_path / "t.model", 350)
    assert len(tokenizer.encode("zebra")) == 1


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*absent\.model"):
        Tokenizer(tmp_path / "absent.model")
    damaged = tmp_path / "damaged.model"
    damaged.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"damaged\.model is not a SentencePiece model"):
        Tokenizer(damaged)
    damaged.write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged\.model"):
        Tokenizer(damaged)


@pytest.mark.parametrize("vocab_size", [5000, 100])
def test_a_vocabulary_the_texts_cannot_support(tmp_path, vocab_size):
    with pytest.raises(UserError, match=f"cannot train {vocab_size} pieces"):
        train_tokenizer(TEXTS[:3], tmp_path / "t.model", vocab_size)
    assert not list(tmp_path.iterdir())


def test_no_texts(tmp_path):
    with pytest.raises(UserError, match="are empty"):
        train_tokenizer(["", "\n"], tmp_path / "t.model", 300)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return train_tokenizer(TEXTS, tmp_path_factory.mktemp("small") / "t.model", 320)


@pytest.fixture(scope="module")
def with_phrases(tmp_path_factory):
    path = tmp_path_factory.mktemp("phrases") / "t.model"
    return train_tokenizer(TEXTS, path, 320, phrases=(" ASSISTANT: The", "at ["))


odd_texts = st.lists(
    st.sampled_from(["cat", "is", " ", "  ", "\n", "▁", "é", "0.5", "</s>", " the", "at [", "\t"])
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=odd_texts, dummy_prefix=st.booleans())
def test_counting_is_the_length_of_the_ids(small, with_phrases, text, dummy_prefix):
    for tokenizer in (small, with_phrases):
        assert tokenizer.count(text, dummy_prefix) == len(tokenizer.encode(text, dummy_prefix))


@settings(max_examples=100, deadline=None)
@given(text=odd_texts, dummy_prefix=st.booleans())
def test_counting_with_llamas_tokenizer(llama, text, dummy_prefix):
    assert llama.count(text, dummy_prefix) == len(llama.encode(text, dummy_prefix))


def test_a_word_is_encoded_once_unless_pieces_reach_over_words(small, with_phrases):
    for tokenizer, words in ((pickle.loads(pickle.dumps(small)), 2), (with_phrases, 0)):
        assert tokenizer.count("cat cat cat dog") == len(tokenizer.encode("cat cat cat dog"))
        assert len(tokenizer._word_lengths) == words
