"""Greedy decoding with a cache, against the whole forward pass run again for every token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.inference.engine import BUCKET, Engine, Prompt, bucket_length
from svit_jax.inference.sampler import Sampling
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, Svit, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

FLOAT32 = Compute("float32")
NEVER = -1
"""An eos id that no token has."""
NEW = 7


@pytest.fixture(scope="module")
def model(make_run) -> Svit:
    config = make_run("finetune", "model.decoder.kv_heads=4").model
    return jax.jit(lambda: initial_model(config, 3))()


def make_engine(model: Svit, batch_size: int, eos_id: int = NEVER, **more) -> Engine:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    parameters = flat_parameters(model)
    return Engine(model.config, parameters, FLOAT32, mesh, Rules(), eos_id, batch_size, **more)


def make_prompt(model: Svit, seed: int, length: int, pictures: int = 1) -> Prompt:
    rng = np.random.default_rng(seed)
    vision = model.config.vision
    index = np.full(length, -1, np.int32)
    for m in range(pictures):
        start = 2 + m * (vision.patches + 1)
        index[start : start + vision.patches] = m * vision.patches + np.arange(vision.patches)
    size = vision.image_size
    return Prompt(
        rng.integers(3, model.config.decoder.vocab, length).astype(np.int32),
        index,
        rng.integers(0, 256, (pictures, size, size, 3)).astype(np.uint8),
    )


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
def expected(model, prompts) -> list[list[int]]:
    """The argmax of the full forward pass, again for each token, without a cache."""
    length = 96

    @jax.jit
    def next_token(tokens, segments, images, index, last):
        positions = jnp.arange(length)[None]
        hidden = model.hidden(tokens, segments, positions, images, index, FLOAT32)
        return jnp.argmax(model.decoder.unembed(hidden)[0, last])

    answers = []
    for prompt in prompts:
        tokens, index = np.zeros((1, length), np.int32), np.full((1, length), -1, np.int32)
        count = len(prompt.tokens)
        tokens[0, :count], index[0, :count] = prompt.tokens, prompt.vision_index
        for last in range(count - 1, count - 1 + NEW):
            segments = (np.arange(length) <= last).astype(np.int32)[None]
            token = next_token(tokens, segments, prompt.images[None], index, last)
            tokens[0, last + 1] = token
        answers.append(tokens[0, count : count + NEW].tolist())
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


def test_cached_decoding_is_the_full_forward_pass(single, prompts, expected):
    for prompt, tokens in zip(prompts, expected, strict=True):
        steps = list(single.stream([prompt], NEW))
        assert all(step.shape == (1,) and step.dtype == np.int32 for step in steps)
        assert [int(step[0]) for step in steps] == tokens


def test_generate_keeps_the_order_and_needs_no_company(triple, prompts, expected):
    """A batch of three, filled up with nothing or with others: the same tokens, in order."""
    assert list(triple.generate(prompts, NEW)) == expected
    backwards = list(triple.generate(prompts[::-1], NEW))
    assert backwards[::-1] == expected
    assert list(triple.generate(prompts[:1], NEW)) == expected[:1]
    assert list(triple.generate([], NEW)) == []


def test_generate_answers_as_it_goes(triple, prompts):
    """The first answer does not wait for the last batch."""
    ran = []
    true = triple.stream

    def counting(some, *rest):
        ran.append(len(some))
        return true(some, *rest)

    triple.stream = counting
    try:
        next(triple.generate(prompts, NEW))
    finally:
        del triple.stream
    assert ran == [3]


def test_rows_of_one_batch_may_have_other_lengths_and_pictures(triple, prompts, expected):
    some = [prompts[4], prompts[0], prompts[5]]
    steps = np.stack(list(triple.stream(some, NEW)), axis=1).tolist()
    assert steps == [expected[4], expected[0], expected[5]]


def test_eos_ends_a_row_and_is_not_part_of_it(model, prompts, expected):
    eos = expected[0][3]
    cut = [tokens[: tokens.index(eos)] if eos in tokens else tokens for tokens in expected]
    engine = make_engine(model, 3, eos)
    assert list(engine.generate(prompts, NEW)) == cut
    # In a stream, a row that has ended repeats eos while others go on.
    steps = np.stack(list(engine.stream([prompts[0], prompts[2]], NEW)), axis=1).tolist()
    at = expected[0].index(eos)
    assert steps[0][at:] == [eos] * (len(steps[0]) - at) and steps[1][: len(cut[2])] == cut[2]
    # Alone, it ends the stream.
    assert len(list(engine.stream([prompts[0]], NEW))) == at + 1


def test_sampling_is_by_seed(single, prompts):
    def sample(seed):
        sampling = Sampling(temperature=5.0, seed=seed)
        return [int(step[0]) for step in single.stream([prompts[0]], NEW, sampling)]

    assert sample(1) == sample(1) != sample(2)
    # A seed is data: no other program is compiled for it.
    compiled = single._decode._cache_size()
    sample(3)
    assert single._decode._cache_size() == compiled


def test_context_limit(model, prompts):
    engine = make_engine(model, 1, max_length=37)
    with pytest.raises(
        UserError, match="a prompt of 31 tokens and 7 new ones pass the context of 37"
    ):
        next(engine.stream([prompts[0]], 7))
    assert len(list(engine.stream([prompts[0]], 6))) == 6


def test_wrong_calls(single, prompts):
    with pytest.raises(UserError, match="max_new_tokens is 0; ask for at least 1"):
        next(single.stream([prompts[0]], 0))
    with pytest.raises(ValueError, match="2 prompts do not fit a batch of 1"):
        next(single.stream(prompts[:2], 3))


@pytest.mark.parametrize("length, expected", [(1, 1), (BUCKET, 1), (BUCKET + 1, 2)])
def test_buckets_hold_the_length(length, expected):
    assert bucket_length(length) == expected * BUCKET
