"""Decoding on one CPU device, in C (`decode_cpu.c`): products of a few rows with a kernel, and
attention of one token a row over its cache. Float32.

Both take as long as the machine takes to read the kernel, or the cache. XLA's code reads a kernel
at about two thirds of memory's speed where there are a few rows, and the cache with one thread.

The C is compiled when it is first asked for, by the machine's own compiler (`cc`, or what CC says)
for its own processor, and kept in the user's cache folder. Where that can't be done, XLA does it.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from svit_jax.sharding.rules import Placement

MOST_ROWS = 16
"""With more rows a product takes as long as it takes to multiply, which XLA's code does well."""

SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC")
_TARGETS = ("svit_few_rows", "svit_attend_cached", "svit_rotate")
_LIMIT = 60.0
"""Seconds that a compiler may take."""

_LOGGER = logging.getLogger(__name__)


def suits(dtype: jnp.dtype, place: Placement) -> bool:
    """Whether this decodes in this dtype there: `few_rows` and `attend_cached` then work."""
    one = place.mesh is None or place.mesh.size == 1
    return dtype == jnp.float32 and place.platform == "cpu" and one and compiled()


def few_rows(
    kernel: Float[Array, "O I"] | Int8[Array, "O I"], x: Float[Array, "B I"]
) -> Float[Array, "B O"]:
    """x times a kernel [outputs, inputs], for up to `MOST_ROWS` rows. The kernel is read as it is
    kept, in float32, bfloat16 or int8."""
    made = jax.ShapeDtypeStruct((len(x), len(kernel)), x.dtype)
    result: Array = jax.ffi.ffi_call("svit_few_rows", made)(x, kernel)
    return result


def attend_cached(
    q: Float[Array, "B K G H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    positions: Int[Array, "B"],
) -> Float[Array, "B K G H"]:
    """Attention of each row's one token, which sees the slots up to its position; no other slot is
    read. G queries share a head of the cache."""
    made = jax.ShapeDtypeStruct(q.shape, q.dtype)
    call = jax.ffi.ffi_call("svit_attend_cached", made)
    result: Array = call(q, k, v, positions.astype(jnp.int32))
    return result


def rotate(
    x: Float[Array, "B T N H"], cos: Float[Array, "B T 1 h"], sin: Float[Array, "B T 1 h"]
) -> Float[Array, "B T N H"]:
    """Pairs of components h and h + H/2 rotated by these cosines and sines."""
    made = jax.ShapeDtypeStruct(x.shape, x.dtype)
    result: Array = jax.ffi.ffi_call("svit_rotate", made)(x, cos, sin)
    return result


@functools.cache
def compiled() -> bool:
    """Whether the C is there for XLA to call: compiled and loaded once a process."""
    try:
        library = _library(cache_folder())
        for name in _TARGETS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library[name]), platform="cpu")
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).splitlines()
        _LOGGER.warning(
            "decoding is left to XLA, which is slower on a CPU: %s could not be compiled (%s)",
            SOURCE.name,
            next((line for line in said if "error" in line), said[0]),
        )
        return False
    return True


def cache_folder() -> Path | None:
    """Where what was compiled is kept; None where this user has no folder of their own for it."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "svit-jax"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What lies there is run: nobody else may have put it there.
        status = folder.stat()
        mine = status.st_uid == os.getuid() and not status.st_mode & 0o022
    except (OSError, RuntimeError):
        return None
    return folder if mine and os.access(folder, os.W_OK) else None


def _library(folder: Path | None) -> ctypes.CDLL:
    """The compiled C, from the folder if it is there. Raises OSError or SubprocessError."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return ctypes.CDLL(str(_compile(Path(made) / "decode_cpu.so")))
    path = folder / f"decode_cpu-{_identity()}.so"
    return ctypes.CDLL(str(path if path.exists() else _compile(path)))


def _identity() -> str:
    """Of all that what is compiled depends on."""
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    parts = [SOURCE.read_text(), *_compiler(), *_FLAGS, jax.lib.__version__]
    parts += [platform.system(), platform.machine(), processor]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def _compile(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    where = ["-I", jax.ffi.include_dir(), str(SOURCE), "-o", str(aside), "-lm"]
    try:
        subprocess.run(
            [*_compiler(), *_FLAGS, *where],
            check=True,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
        )
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
