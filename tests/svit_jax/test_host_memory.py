import platform
import subprocess
import sys

import pytest

from svit_jax import host_memory

# The pages that a process has to be given anew for a block that it had freed before. A test of the
# whole process, so in one of its own.
_SCRIPT = """
import resource, sys
from svit_jax.host_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
bytearray(64 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytes(memoryview(bytearray(16 * 2**20)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_without_the_kernel():
    assert _faults("kept") < _faults("as it was") / 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep_freed_memory()
