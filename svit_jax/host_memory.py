"""The C library's heap: kept for steps that run on the CPU, given back by conversions."""

import ctypes
import gc
import platform

# Names and meanings: mallopt(3); M_ARENA_MAX is in malloc.h since glibc 2.10.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER, _GROWTH = 2**31 - 1, 64 * 2**20
_WORTH_IT = 8 * 2**20


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees; returns whether its C library can.

    XLA allocates a CPU step's buffers anew at each step. glibc gives large ones back to the kernel
    at once, and the kernel clears their pages every time: in the demo's steps a fifth of the
    time. Call it before JAX starts: threads that run already keep heaps of their own. The price is
    that the process stays as large as it once was, and that its threads share one heap.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _GROWTH}
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)


def return_freed_memory(freed: int) -> None:
    """Gives the kernel back what this process has freed, so that the largest array that passes, not
    the sum of all, decides how large it grows. Where less than 8 MiB were freed it isn't worth it.

    Orbax leaves arrays in reference cycles, and glibc keeps what it freed in its threads' heaps.
    """
    if freed < _WORTH_IT:
        return
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
