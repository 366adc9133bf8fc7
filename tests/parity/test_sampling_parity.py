"""What may be drawn, and how likely, against transformers' own logits processors."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from svit_jax.inference.sampler import Sampling, Settings, candidates, penalised

VOCABULARY = 997


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7),
        Sampling(1.0, top_k=40),
        Sampling(1.5, top_p=0.9),
        Sampling(0.2, top_p=0.7, top_k=50, repetition_penalty=1.2),
        Sampling(1.0, repetition_penalty=3.0),
        Sampling(1.0, repetition_penalty=0.5, top_p=0.3),
    ],
)
def test_candidates(sampling, differences):
    rng = np.random.default_rng(3)
    logits = (3 * rng.standard_normal((6, VOCABULARY))).astype(np.float32)
    said = rng.integers(0, VOCABULARY, (6, 60))
    # In the order in which `generate` applies them.
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
            TemperatureLogitsWarper(sampling.temperature),
            *([TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []),
            *([TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []),
        ]
    )
    expected = theirs(torch.tensor(said), torch.tensor(logits)).numpy()
    seen = np.zeros(logits.shape, bool)
    seen[np.arange(6)[:, None], said] = True
    settings = Settings.of([sampling] * 6)
    found = candidates(penalised(jnp.asarray(logits), settings, jnp.asarray(seen)), settings)
    found = np.asarray(found)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    kept = np.isfinite(expected)
    differences.relative("logits to draw from", found[kept], expected[kept], 1e-6)
