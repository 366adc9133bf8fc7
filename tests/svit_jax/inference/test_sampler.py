"""Sampling against the distribution written out, and transformers' rules restated in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers_sampling import processed

from data_pipeline.common.errors import UserError
from svit_jax.inference.sampler import (
    GREEDY,
    Sampling,
    Settings,
    candidates,
    log_probability,
    penalised,
    pick,
)

PROBABILITIES = np.array([0.15, 0.5, 0.05, 0.3])
DRAWS = 40_000


def frequencies(sampling: Sampling) -> np.ndarray:
    """Of draws number 0, 1, 2 ... of one seed."""
    logits = jnp.tile(jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))[None], (DRAWS, 1))
    settings = Settings.of([sampling] * DRAWS)
    tokens = jax.jit(pick)(logits, settings, jnp.zeros((DRAWS, 4), bool), jnp.arange(DRAWS))
    return np.bincount(np.asarray(tokens), minlength=4) / DRAWS


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(1.0), PROBABILITIES),
        (Sampling(2.0), PROBABILITIES**0.5 / (PROBABILITIES**0.5).sum()),
        (Sampling(0.5), PROBABILITIES**2 / (PROBABILITIES**2).sum()),
        # The smallest set with 0.7: {0.5, 0.3}.
        (Sampling(1.0, top_p=0.7), np.array([0, 0.5, 0, 0.3]) / 0.8),
        (Sampling(1.0, top_p=0.9), np.array([0.15, 0.5, 0, 0.3]) / 0.95),
        (Sampling(1.0, top_p=0.01), np.array([0, 1, 0, 0])),
        # The temperature comes first: at 0.5 the likeliest has 0.685 of the mass.
        (Sampling(0.5, top_p=0.65), np.array([0, 1, 0, 0])),
        (Sampling(1.0, top_k=2), np.array([0, 0.5, 0, 0.3]) / 0.8),
        # Top-k comes before top-p: of {0.5, 0.3}, the likeliest has 0.625.
        (Sampling(1.0, top_k=2, top_p=0.62), np.array([0, 1, 0, 0])),
    ],
)
def test_frequencies_are_the_closed_form(sampling, expected):
    found = frequencies(sampling)
    # Four standard deviations of a frequency among 40,000 draws.
    assert np.abs(found - expected).max() < 4 * 0.5 / DRAWS**0.5
    assert not found[expected == 0].any()


def test_temperature_zero_is_argmax():
    logits = np.random.default_rng(0).standard_normal((5, 11)).astype(np.float32)
    found = pick(
        jnp.asarray(logits), Settings.of([GREEDY] * 5), jnp.zeros((5, 11), bool), jnp.arange(5)
    )
    np.testing.assert_array_equal(found, np.argmax(logits, axis=1))


@pytest.mark.parametrize("top_p", [1e-9, 1e-40, 1e-46, 5e-324])
def test_the_least_top_p_leaves_the_likeliest(top_p):
    """The last two are 0 in float32."""
    found = frequencies(Sampling(1.0, top_p=top_p))
    np.testing.assert_array_equal(found, [0, 1, 0, 0])


@pytest.mark.parametrize("temperature", [0.005, 1e-38, 1e-46])
def test_the_coldest_temperatures_are_greedy(temperature):
    """Divided by them, logits that differ would be equal: infinite."""
    settings = Settings.of([Sampling(temperature)] * 2)
    logits = jnp.asarray([[20.0, 30.0, 29.0], [-3.0, -2.0, -1.0]], jnp.float32)
    found = pick(logits, settings, jnp.zeros((2, 3), bool), jnp.arange(2))
    np.testing.assert_array_equal(found, [1, 2])


MIXED = [
    GREEDY,
    Sampling(0.7, seed=1),
    Sampling(1.3, top_k=5, seed=2),
    Sampling(1.0, top_p=0.8, seed=3),
    Sampling(0.9, top_k=7, top_p=0.6, repetition_penalty=1.4, seed=4),
    Sampling(repetition_penalty=2.5),
    Sampling(2.0, top_k=1, repetition_penalty=0.6),
    Sampling(1.0, top_k=99, top_p=1.0),
]


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, list[list[int]], np.ndarray]:
    """(logits, the tokens of each row so far, where they are)."""
    rng = np.random.default_rng(5)
    logits = (2 * rng.standard_normal((len(MIXED), 23))).astype(np.float32)
    said = [rng.integers(0, 23, 9).tolist() for _ in MIXED]
    seen = np.zeros(logits.shape, bool)
    for row, tokens in enumerate(said):
        seen[row, tokens] = True
    return logits, said, seen


def test_each_row_has_its_own_candidates(rows):
    logits, said, seen = rows
    settings = Settings.of(MIXED)
    found = candidates(penalised(jnp.asarray(logits), settings, jnp.asarray(seen)), settings)
    found = np.asarray(jax.nn.log_softmax(found))
    for row, sampling in enumerate(MIXED):
        expected = processed(
            logits[row],
            said[row],
            sampling.repetition_penalty,
            sampling.temperature or 1.0,
            sampling.top_k,
            sampling.top_p,
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-5)
    assert np.isinf(found).any(axis=1).tolist() == [
        s.top_k in (1, 5, 7) or s.top_p < 1 for s in MIXED
    ]


def test_a_row_gets_the_same_token_in_any_batch(rows):
    logits, _, seen = rows
    count = np.arange(len(MIXED))

    def tokens(places: list[int]) -> list[int]:
        settings = Settings.of([MIXED[place] for place in places])
        some, said, number = (jnp.asarray(array[places]) for array in (logits, seen, count))
        return pick(some, settings, said, number).tolist()

    together = tokens(list(range(len(MIXED))))
    assert [tokens([row])[0] for row in range(len(MIXED))] == together
    assert tokens([4, 0, 3]) == [together[4], together[0], together[3]]


def test_the_penalty_changes_a_greedy_choice():
    logits = jnp.asarray([[1.0, 1.9, -0.1], [-2.0, -1.0, -1.5]], jnp.float32)
    seen = jnp.asarray([[False, True, False], [False, True, False]])
    settings = Settings.of([Sampling(repetition_penalty=2.0)] * 2)
    assert pick(logits, settings, seen, jnp.zeros(2, jnp.int32)).tolist() == [0, 2]


def test_log_probabilities_are_the_models_own():
    logits = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))[None] + 3
    found = log_probability(jnp.tile(logits, (4, 1)), jnp.arange(4))
    np.testing.assert_allclose(found, np.log(PROBABILITIES), rtol=1e-6)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"temperature": -1.0}, "temperature must be at least 0 and top_p in"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"top_p": 0.0}, "top_p in"),
        ({"top_p": 1.5}, "top_p in"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"repetition_penalty": 0.0}, "the penalty above 0"),
        ({"seed": -1}, "a seed must be in"),
        ({"seed": 2**32}, "a seed must be in"),
    ],
)
def test_impossible_settings(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)
