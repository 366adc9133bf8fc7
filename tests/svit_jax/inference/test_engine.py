"""Decoding with a cache, against the whole forward pass run again for every token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_prompts import FLOAT32, make_engine, make_prompt

from data_pipeline.common.errors import UserError
from svit_jax.inference.engine import Engine, Prompt
from svit_jax.inference.sampler import Sampling
from svit_jax.inference.shapes import bucket_length, cache_slots

NEW = 7


@pytest.fixture(scope="module")
def prompts(model) -> list[Prompt]:
    """Of two buckets, with one picture, two, and none."""
    return [
        make_prompt(model, 0, 31),
        make_prompt(model, 1, 70),
        make_prompt(model, 2, 63),
        make_prompt(model, 3, 24),
        make_prompt(model, 4, 9, pictures=0),
        make_prompt(model, 5, 50, pictures=2),
    ]


@pytest.fixture(scope="module")
def full_pass(model):
    """(prompt, tokens after it) -> logits for the token that follows, without a cache."""
    length = 96

    @jax.jit
    def logits(tokens, segments, images, index, last):
        positions = jnp.arange(length)[None]
        hidden = model.hidden(tokens, segments, positions, images, index, FLOAT32)
        return model.decoder.unembed(hidden)[0, last]

    def run(prompt: Prompt, more: list[int]) -> np.ndarray:
        tokens, index = np.zeros((1, length), np.int32), np.full((1, length), -1, np.int32)
        count = len(prompt.tokens)
        tokens[0, :count], index[0, :count] = prompt.tokens, prompt.vision_index
        tokens[0, count : count + len(more)] = more
        segments = (np.arange(length) < count + len(more)).astype(np.int32)[None]
        last = count + len(more) - 1
        return np.array(logits(tokens, segments, prompt.images[None], index, last))

    return run


@pytest.fixture(scope="module")
def expected(full_pass, prompts) -> list[list[int]]:
    """The argmax of the full forward pass, again for each token."""
    answers: list[list[int]] = []
    for prompt in prompts:
        tokens: list[int] = []
        while len(tokens) < NEW:
            tokens.append(int(np.argmax(full_pass(prompt, tokens))))
        answers.append(tokens)
    return answers


@pytest.fixture(scope="module")
def single(model) -> Engine:
    return make_engine(model, 1)


@pytest.fixture(scope="module")
def triple(model) -> Engine:
    return make_engine(model, 3)


def test_answers_differ(expected):
    """Else the tests below would show little."""
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


def ids(completions) -> list[list[int]]:
    return [completion.tokens for completion in completions]


def test_cached_decoding_is_the_full_forward_pass(single, prompts, expected):
    """In an engine of one row; the tests below have three."""
    for n in (0, 3, 5):
        assert [token.id for token in single.stream(prompts[n], NEW)] == expected[n]


def test_generate_keeps_the_order_and_needs_no_company(triple, prompts, expected):
    """A batch of three, filled up with nothing or with others: the same tokens, in order."""
    assert ids(triple.generate(prompts, NEW)) == expected
    backwards = ids(triple.generate(prompts[::-1], NEW))
    assert backwards[::-1] == expected
    assert ids(triple.generate(prompts[:1], NEW)) == expected[:1]
    assert list(triple.generate([], NEW)) == []
    assert [token.id for token in triple.stream(prompts[5], NEW)] == expected[5]


def test_generate_answers_as_it_goes(triple, prompts, monkeypatch):
    """The first answer does not wait for the last batch."""
    ran = []
    true = triple.programs.prefill
    monkeypatch.setattr(
        triple.programs, "prefill", lambda *given, **more: ran.append(1) or true(*given, **more)
    )
    next(triple.generate(prompts, NEW))
    assert ran == [1]


def test_eos_ends_a_row_and_is_not_part_of_it(model, prompts, expected):
    eos = expected[0][3]
    prompts, expected = (x[:1] + x[2:4] for x in (prompts, expected))
    cut = [tokens[: tokens.index(eos)] if eos in tokens else tokens for tokens in expected]
    engine = make_engine(model, 3, eos)
    found = list(engine.generate(prompts, NEW))
    assert ids(found) == cut
    assert [c.ended for c in found] == [len(c) < NEW for c in cut]
    assert [token.id for token in engine.stream(prompts[0], NEW)] == cut[0]


def test_context_limit(model, prompts):
    engine = make_engine(model, 1, max_length=37)
    with pytest.raises(
        UserError, match="a prompt of 31 tokens and 7 new ones pass the context of 37"
    ):
        next(engine.stream(prompts[0], 7))
    assert len(list(engine.stream(prompts[0], 6))) == 6


def test_wrong_calls(single, prompts):
    with pytest.raises(UserError, match="max_new_tokens is 0; ask for at least 1"):
        next(single.stream(prompts[0], 0))


def log_shares(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()


def test_log_probabilities_are_of_the_full_pass(triple, prompts, expected, full_pass):
    """Those that come with the tokens, and those of a continuation that is given."""
    likely = [
        [log_shares(full_pass(prompt, tokens[:n]))[tokens[n]] for n in range(NEW)]
        for prompt, tokens in zip(prompts, expected, strict=True)
    ]
    found = [completion.log_probabilities for completion in triple.generate(prompts, NEW)]
    np.testing.assert_allclose(found, likely, atol=2e-5)
    assert [t.log_probability for t in triple.stream(prompts[1], NEW)] == pytest.approx(
        likely[1], abs=2e-5
    )
    given = [[5, 9, 7], [11], [3, 3, 3, 3], expected[3], [8, 400], []]
    scored = list(triple.score(prompts, given))
    for prompt, tokens, logs in zip(prompts, given, scored, strict=True):
        shares = [log_shares(full_pass(prompt, tokens[:n]))[tokens[n]] for n in range(len(tokens))]
        assert logs.tolist() == pytest.approx(shares, abs=2e-5)
    np.testing.assert_allclose(scored[3], likely[3], atol=2e-5)


def test_the_repetition_penalty_counts_prompt_and_answer(triple, prompts, full_pass):
    """Greedy under a penalty, restated: of the text's tokens and the answer's, not the patches'."""
    prompt, penalty = prompts[0], 1.6
    text = set(prompt.tokens[prompt.vision_index < 0].tolist())
    answer: list[int] = []
    while len(answer) < NEW:
        logits = full_pass(prompt, answer)
        for token in text | set(answer):
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        answer.append(int(np.argmax(logits)))
    sampling = Sampling(repetition_penalty=penalty)
    found = list(triple.generate([prompts[3], prompt], NEW, [Sampling(), sampling]))
    assert found[1].tokens == answer
    # Without the penalty of the other row.
    assert found[0].tokens == next(triple.generate([prompts[3]], NEW)).tokens


def test_a_seed_gives_a_prompt_its_tokens_in_any_batch(triple, prompts):
    hot = Sampling(1.5, top_k=50, seed=7)
    alone = [token.id for token in triple.stream(prompts[2], NEW, hot)]
    others = [Sampling(2.0, seed=1), hot, Sampling()]
    together = list(triple.generate([prompts[0], prompts[2], prompts[3]], NEW, others))
    assert together[1].tokens == alone
    again = [token.id for token in triple.stream(prompts[2], NEW, Sampling(1.5, top_k=50, seed=8))]
    assert again != alone


def test_a_batch_ends_when_every_answer_is_complete(triple, prompts, expected):
    """`complete` is asked about answers that grow, and not about those that have ended."""
    asked = []

    def complete(tokens):
        asked.append(list(tokens))
        return True

    found = next(triple.generate(prompts[:1], 64, complete=complete))
    assert len(found.tokens) < 64 and found.tokens[:NEW] == expected[0][: len(found.tokens)]
    assert asked == [found.tokens] and not found.ended


@pytest.mark.parametrize("length", [*range(1, 1100, 37), 63, 64, 65, 512, 513, 1024, 1025, 4096])
def test_buckets_hold_the_length_with_little_to_spare(length):
    found = bucket_length(length)
    assert length <= found and found % 64 == 0 and bucket_length(found) == found
    assert found - length < max(64, length / 8)


def test_buckets_are_few():
    assert len({bucket_length(length) for length in range(1, 4097)}) == 32
    assert [cache_slots(n, 64, 4096) for n in (60, 64, 65)] == [128, 128, 192]
    # Never past the context, but for a prompt whose own length is rounded up past it.
    assert [cache_slots(n, 64, 100) for n in (30, 90)] == [128, 128]
    assert cache_slots(4000, 96, 4096) == 4096
