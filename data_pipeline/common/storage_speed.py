"""How fast a disk or a bucket takes and gives bytes."""

import os
import time

from etils import epath

from data_pipeline.common.files import in_bucket

_MB = 1e6


def timed_write(path: epath.Path, content: bytes) -> float:
    """Writes the file, to the disk itself, and returns MB/s."""
    start = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        if not in_bucket(path):
            file.flush()
            os.fsync(file.fileno())
    return len(content) / _MB / (time.perf_counter() - start)


def timed_read(path: epath.Path, most: int) -> tuple[bytes, float]:
    """The file's first bytes and MB/s, not out of the system's memory where it can be told so."""
    with path.open("rb") as file:
        if not in_bucket(path) and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        content = file.read(most)
        return content, len(content) / _MB / (time.perf_counter() - start)
