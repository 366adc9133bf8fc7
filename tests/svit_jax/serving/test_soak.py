"""Many requests of every kind to a real `svit serve` leave nothing behind: `benchmarks/soak.py`."""

import pytest
from soak import CACHE_BYTES, GROWTH_MIB, soak


@pytest.mark.slow
def test_six_hundred_requests():
    found = soak(600, blocks=6)
    assert found["unexpected"] == {} and found["failures_in_log"] == found["exit_code"] == 0
    assert found["errors_in_log"]["body_too_slow"] and found["errors_in_log"]["body_too_large"]
    _, warm, *_, last = found["samples"]
    assert last["rss_mib"] - warm["rss_mib"] < GROWTH_MIB
    assert last["files"] <= warm["files"] and last["threads"] <= warm["threads"]
    assert warm["picture_cache_bytes"] <= last["picture_cache_bytes"] <= CACHE_BYTES
