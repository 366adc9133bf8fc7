"""The stored fixtures are what transformers says today."""

from pathlib import Path

import numpy as np
import pytest
from make_fixtures import fixture

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.mark.parametrize("name", ["multi_head", "grouped"])
def test_fixtures_are_current(name):
    expected = fixture(name)
    with np.load(FIXTURES / f"llava_{name}.npz") as stored:
        assert set(stored) == set(expected)
        for key, value in expected.items():
            # Torch's own logits move by 2e-6 with its number of threads.
            np.testing.assert_allclose(stored[key], value, rtol=0, atol=1e-5, err_msg=key)
