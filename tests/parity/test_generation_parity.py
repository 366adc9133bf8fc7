"""Greedy answers of our engine against transformers' `generate`, token for token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_samples import Sample, llava_inputs, prompt_of, random_sample
from torch_reference import SHAPES, our_parameters, random_llava

from svit_jax.inference.engine import Engine
from svit_jax.models.svit import Compute, SvitConfig
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

NEW = 24
NEVER = -1
"""An eos id that no token has."""


@pytest.fixture(scope="module", params=SHAPES)
def config(request) -> SvitConfig:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def reference(config):
    return random_llava(config, seed=7)


@pytest.fixture(scope="module")
def samples(config) -> list[Sample]:
    """Ragged, with no picture, one, two; the lengths cross one of our buckets."""
    rng = np.random.default_rng(8)
    return [random_sample(config, rng, w, m) for w, m in ((6, 1), (70, 0), (30, 1), (12, 2))]


def reference_answers(reference, config, samples, eos: int | None) -> list[list[int]]:
    """All samples as one batch, padded on the left as transformers wants it."""
    inputs = llava_inputs(config, samples, padding="left")
    inputs.pop("labels")
    answers = reference.generate(
        **inputs, do_sample=False, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=0
    )
    rows = answers[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]


def our_answers(reference, config, samples, eos: int, batch_size: int) -> list[list[int]]:
    parameters = {p: jnp.asarray(v) for p, v in our_parameters(reference, config).items()}
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    engine = Engine(config, parameters, Compute("float32"), mesh, Rules(), eos, batch_size)
    found = engine.generate([prompt_of(config, sample) for sample in samples], NEW)
    return [completion.tokens for completion in found]


@pytest.fixture(scope="module")
def expected(reference, config, samples) -> list[list[int]]:
    return reference_answers(reference, config, samples, None)


def test_greedy_answers_token_for_token(reference, config, samples, expected):
    assert [len(tokens) for tokens in expected] == [NEW] * len(samples)
    assert len({tuple(tokens) for tokens in expected}) == len(samples)
    assert our_answers(reference, config, samples, NEVER, batch_size=3) == expected


def test_greedy_answers_end_where_the_reference_ends(reference, config, samples, expected):
    eos = expected[2][9]
    cut = reference_answers(reference, config, samples, eos)
    assert len(cut[2]) <= 9
    assert our_answers(reference, config, samples, eos, batch_size=1) == cut
