"""The padded plan's order with torch's random numbers, as a reference run of that seed has it."""

import numpy as np
import pytest
import torch
from llava_sampler import reference_order

from data_pipeline.loading.grouping import modality_length_order


@pytest.mark.parametrize("share_of_text", [0.0, 0.06, 1.0])
def test_the_order_with_torchs_permutations(share_of_text):
    rng = np.random.default_rng(1)
    words = rng.integers(1, 900, 2500)
    words = np.where(rng.random(2500) < share_of_text, -words, words)
    torch.manual_seed(42)
    expected = reference_order(words.tolist(), 16, 8, lambda n: torch.randperm(n).tolist())
    torch.manual_seed(42)
    found = modality_length_order(words, 128, 8, lambda n: torch.randperm(n).numpy())
    assert found.tolist() == expected
