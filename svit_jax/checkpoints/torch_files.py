"""`torch.save` files (.bin, .pt), read without torch and without running what they hold.

Such a file is a zip of uncompressed entries: a pickle that describes tensors, and one entry of
bytes for each storage. A pickle can name any function and have it called; this reader knows five
names, gives each a meaning of its own that only describes, and refuses all others.
"""

import collections
import dataclasses
import io
import math
import os
import pickle
import zipfile
from typing import Any

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.checkpoints.lazy_array import BFLOAT16, LazyArray, read_span

_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_MAX_PICKLE = 64 * 1024 * 1024  # a description; the largest real ones are below 1 MB
_LOCAL_HEADER = 30


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageKind:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    dtype: np.dtype
    key: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _View:
    numbers = (offset, *shape, *stride)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(stride)
        or any(type(number) is not int or number < 0 for number in numbers)
    ):
        raise pickle.UnpicklingError("a tensor that is not described as one")
    return _View(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, *_: Any) -> _View:
    if not isinstance(data, _View):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("torch", name): _StorageKind(dtype) for name, dtype in _STORAGES.items()},
}


class _Describer(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, identity: Any) -> _Storage:
        kind, storage, key, _, count = identity
        if kind != "storage" or not isinstance(storage, _StorageKind):
            raise pickle.UnpicklingError("a storage of no known type")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage that is not described as one")
        return _Storage(storage.dtype, key, count)


def read_torch(path: PathLike) -> dict[str, LazyArray]:
    """The tensors of one file, unread. Raises UserError where it holds anything but tensors,
    asks for code, or contradicts itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            root = _root(path, entries)
            description = _description(archive, root, path)
            _check_byte_order(archive, entries, root, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(
            f"torch file {path} is not the zip that torch.save writes ({error}); it is cut off, a "
            "Git LFS pointer, or from torch before 1.6: fetch it again, or save it anew."
        ) from None
    if not isinstance(description, dict):
        raise _damaged(path, f"it holds a {type(description).__name__}, not named tensors")
    found = {}
    for name, view in description.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise _damaged(path, f"{name!r} is a {type(view).__name__}, not a tensor")
        found[name] = _tensor(path, name, view, entries.get(f"{root}/data/{view.storage.key}"))
    return found


def _root(path: PathLike, entries: dict[str, zipfile.ZipInfo]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _damaged(path, f"it has {len(roots)} data.pkl, expected one")
    return roots[0]


def _description(archive: zipfile.ZipFile, root: str, path: PathLike) -> Any:
    entry = archive.getinfo(f"{root}/data.pkl")
    if entry.file_size > _MAX_PICKLE:
        raise _damaged(path, f"its description claims {entry.file_size} bytes")
    try:
        return _Describer(io.BytesIO(archive.read(entry))).load()
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # a pickle's opcodes can fail in any way
        raise UserError(
            f"torch file {path} is not plain tensors: {error}; nothing of it was run. Save the "
            "state dict alone, or as safetensors."
        ) from None


def _check_byte_order(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], root: str, path: PathLike
) -> None:
    entry = entries.get(f"{root}/byteorder")
    # By its size first: a compressed entry could unpack to any length.
    if entry and (entry.file_size != len(b"little") or archive.read(entry) != b"little"):
        raise _damaged(path, "its numbers are not little-endian")


def _tensor(path: PathLike, name: str, view: _View, entry: zipfile.ZipInfo | None) -> LazyArray:
    storage = view.storage
    if entry is None:
        raise _damaged(path, f"{name} has no bytes (no data/{storage.key})")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise _damaged(path, f"the bytes of {name} are compressed or encrypted")
    if entry.file_size != storage.count * storage.dtype.itemsize:
        raise _damaged(
            path,
            f"the bytes of {name} are {entry.file_size}, and {storage.count} values of "
            f"{storage.dtype} were announced",
        )
    # A view whose elements repeat (a stride of zero) could claim any size.
    if any(stride == 0 for size, stride in zip(view.shape, view.stride, strict=True) if size > 1):
        raise _damaged(path, f"{name} repeats its elements")
    empty = 0 in view.shape
    extent = (
        0
        if empty
        else 1
        + sum((size - 1) * stride for size, stride in zip(view.shape, view.stride, strict=True))
    )
    if view.offset + extent > storage.count or math.prod(view.shape) > extent:
        raise _damaged(path, f"{name} of shape {view.shape} reaches past its bytes")

    def read() -> np.ndarray:
        start = _data_offset(path, entry) + view.offset * storage.dtype.itemsize
        values = read_span(path, start, storage.dtype, extent)
        if empty:
            return values.reshape(view.shape)
        steps = [stride * storage.dtype.itemsize for stride in view.stride]
        return np.lib.stride_tricks.as_strided(values, view.shape, steps).copy()

    return LazyArray(view.shape, storage.dtype, f"{name} in {os.path.basename(path)}", read)


def _data_offset(path: PathLike, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its own header, whose length its names decide."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise _damaged(path, f"entry {entry.filename} is not where the zip says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return entry.header_offset + _LOCAL_HEADER + name + extra


def _damaged(path: PathLike, found: str) -> UserError:
    return UserError(f"torch file {path} is damaged or unusual: {found}; fetch or save it again.")
