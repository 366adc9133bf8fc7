"""Many requests of every kind to a real `svit serve` leave nothing behind: `benchmarks/soak.py`.

Memory is for the benchmark to judge, in 3,600 requests. In 600 what they could leave is less than
what the allocator's heaps, one for each thread, still grow by on a busy machine.
"""

import pytest
from soak import CACHE_BYTES, soak


@pytest.mark.slow
def test_six_hundred_requests():
    found = soak(600, blocks=6)
    assert found["unexpected"] == {} and found["failures_in_log"] == found["exit_code"] == 0
    assert found["errors_in_log"]["body_too_slow"] and found["errors_in_log"]["body_too_large"]
    _, warm, *_, last = found["samples"]
    assert last["files"] <= warm["files"] and last["threads"] <= warm["threads"]
    assert warm["picture_cache_bytes"] <= last["picture_cache_bytes"] <= CACHE_BYTES
