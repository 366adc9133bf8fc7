"""Sampling against the distribution written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.inference.sampler import Sampling, pick

PROBABILITIES = np.array([0.15, 0.5, 0.05, 0.3])
DRAWS = 40_000


def frequencies(sampling: Sampling) -> np.ndarray:
    logits = jnp.tile(jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))[None], (DRAWS, 1))
    tokens = pick(logits, sampling, jax.random.key(0))
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
    ],
)
def test_frequencies_are_the_closed_form(sampling, expected):
    found = frequencies(sampling)
    # Four standard deviations of a frequency among 40,000 draws.
    assert np.abs(found - expected).max() < 4 * 0.5 / DRAWS**0.5
    assert not found[expected == 0].any()


def test_temperature_zero_is_argmax():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((5, 11)), jnp.float32)
    found = pick(logits, Sampling(), jax.random.key(3))
    np.testing.assert_array_equal(found, np.argmax(np.asarray(logits), axis=1))


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_settings(values):
    with pytest.raises(UserError, match="temperature must be at least 0 and top_p in"):
        Sampling(**values)
