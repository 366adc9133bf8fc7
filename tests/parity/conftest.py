"""Comparisons with torch, transformers and peft: `make parity`. Left out where these are absent."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
REFERENCES = ("torch", "transformers", "peft")

# The helpers beside the tests import torch as they load, so a skip inside a test comes too late.
if any(importlib.util.find_spec(name) is None for name in REFERENCES):
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    # Two threads of torch beside XLA's would only wait for each other.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder has the mark `parity`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.parity)


class Differences:
    """Holds values to a bound, and keeps the largest difference of each comparison to show."""

    def __init__(self) -> None:
        self.largest: dict[str, tuple[float, float]] = {}

    def absolute(self, what: str, found: Any, expected: Any, bound: float, name: str = "") -> None:
        """Every value within `bound` of the reference's."""
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        assert found.shape == expected.shape, (what, name)
        self._hold(what, float(np.abs(found - expected).max()), bound, name)

    def relative(self, what: str, found: Any, expected: Any, bound: float, name: str = "") -> None:
        """The largest difference within `bound` times the reference's largest value."""
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        assert found.shape == expected.shape, (what, name)
        largest = np.abs(expected).max()
        assert largest > 0, f"{what} {name}: the reference is zero everywhere"
        self._hold(what, float(np.abs(found - expected).max() / largest), bound, name)

    def _hold(self, what: str, difference: float, bound: float, name: str) -> None:
        seen, _ = self.largest.get(what, (0.0, bound))
        self.largest[what] = (max(seen, difference), bound)
        assert difference <= bound, f"{what} {name}: differs by {difference:.3g}, over {bound:.0e}"


_DIFFERENCES = Differences()


@pytest.fixture(scope="session")
def differences() -> Differences:
    return _DIFFERENCES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A table of what was measured: the numbers of docs/fidelity.md."""
    for what, (difference, bound) in _DIFFERENCES.largest.items():
        terminalreporter.write_line(f"{what:58} {difference:8.1e} of {bound:.0e}")
