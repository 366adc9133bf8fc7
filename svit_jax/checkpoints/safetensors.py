"""Safetensors files: read without trust and without their library, written tensor by tensor.

A file is the header's length (8 bytes, little endian), the header (JSON: name -> dtype, shape,
place), then the tensors' bytes, without holes.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.checkpoints.lazy_array import BFLOAT16, LazyArray, read_span

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # the format's own limit

Described = Mapping[str, LazyArray]


def read_safetensors(path: PathLike) -> dict[str, LazyArray]:
    """The tensors of one file, unread. Raises UserError where header and file contradict."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise _damaged(path, f"its header claims {length} bytes of a file of {size}")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    start, found, places = 8 + length, {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(path, name, entry)
        places.append((begin, end, name))
        found[name] = _tensor(path, name, dtype, shape, start + begin)
    expected, before = 0, "the header"
    for begin, end, name in sorted(places):
        if begin != expected:
            kind = "overlaps" if begin < expected else "leaves a hole after"
            raise _damaged(path, f"{name} {kind} {before}")
        expected, before = end, name
    if start + expected != size:
        raise _damaged(path, f"its tensors end at byte {start + expected} of {size}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _entry(path: PathLike, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    try:
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        numbers = [*shape, begin, end]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("sizes that are no natural numbers")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _damaged(path, f"its entry for {name} is not one ({reason})") from None
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _damaged(
            path, f"{name} of shape {shape} in {entry['dtype']} cannot fill {end - begin} bytes"
        )
    return dtype, shape, begin, end


def _tensor(
    path: PathLike, name: str, dtype: np.dtype, shape: tuple[int, ...], offset: int
) -> LazyArray:
    def read() -> np.ndarray:
        return read_span(path, offset, dtype, math.prod(shape)).reshape(shape)

    return LazyArray(shape, dtype, f"{name} in {os.path.basename(path)}", read)


def _damaged(path: PathLike, found: str) -> UserError:
    return UserError(f"safetensors file {path} is damaged or cut off: {found}; fetch it again.")


class SafetensorsWriter:
    """Writes tensors of known shapes into one file, in any order, each once.

    The caller makes the file appear whole or not at all: it stands under its own name at once.
    """

    def __init__(self, path: PathLike, tensors: Described):
        self._path = path
        self._places: dict[str, tuple[int, LazyArray]] = {}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, tensor in tensors.items():
            end = offset + tensor.nbytes
            header[name] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            self._places[name] = offset, tensor
            offset = end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(self._start + offset)

    def write(self, name: str, array: np.ndarray) -> None:
        offset, expected = self._places.pop(name)
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype), name
        with open(self._path, "r+b", buffering=0) as file:
            file.seek(self._start + offset)
            rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            while rest:
                rest = rest[file.write(rest) :]

    def close(self) -> None:
        """Checks that every tensor was written, and that the bytes are on the disk."""
        assert not self._places, f"not written: {sorted(self._places)}"
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())


def write_safetensors(path: PathLike, tensors: Described) -> None:
    """Reads and writes the tensors one by one."""
    writer = SafetensorsWriter(path, tensors)
    for name, tensor in tensors.items():
        writer.write(name, tensor.read())
    writer.close()


class ShardedWriter:
    """Writes named tensors as Hugging Face does: one `model.safetensors`, or shards of at most
    `shard_bytes` and the index that says what stands where."""

    def __init__(self, folder: PathLike, tensors: Described, shard_bytes: int = 5 * 10**9):
        shards: list[dict[str, LazyArray]] = [{}]
        used = 0
        for name, tensor in tensors.items():
            if shards[-1] and used + tensor.nbytes > shard_bytes:
                shards.append({})
                used = 0
            shards[-1][name] = tensor
            used += tensor.nbytes
        count = len(shards)
        names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
        if count == 1:
            names = ["model.safetensors"]
        self._shards = [
            SafetensorsWriter(os.path.join(folder, name), shard)
            for name, shard in zip(names, shards, strict=True)
        ]
        self._shard_of = {name: n for n, shard in enumerate(shards) for name in shard}
        if count > 1:
            index = {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
                "weight_map": {name: names[n] for name, n in self._shard_of.items()},
            }
            with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
                json.dump(index, file, indent=2)

    def write(self, name: str, array: np.ndarray) -> None:
        self._shards[self._shard_of[name]].write(name, array)

    def close(self) -> None:
        for shard in self._shards:
            shard.close()
