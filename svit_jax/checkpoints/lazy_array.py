"""An array that is described now and read when it is wanted: what conversions pass around."""

import dataclasses
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """Shape and dtype of an array, where it comes from (for errors), and how to read it.

    Nothing is kept: each `read` reads again.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    origin: str
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def cast(self, dtype: np.dtype) -> "LazyArray":
        """The same array in another dtype, rounded to nearest when it is read."""
        if dtype == self.dtype:
            return self
        return LazyArray(self.shape, dtype, self.origin, lambda: self.read().astype(dtype))


def held(array: np.ndarray, origin: str) -> LazyArray:
    """An array that is in memory already."""
    return LazyArray(array.shape, array.dtype, origin, lambda: array)


def read_span(path: PathLike, offset: int, dtype: np.dtype, count: int) -> np.ndarray:
    """`count` values from one place of a file, in memory of their own. A memory map would be
    simpler, but its pages count as the process's own: a checkpoint read once would fill memory."""
    array = np.empty(count, dtype)
    target = array.view(np.uint8).data
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        done = 0
        while done < len(target):
            got = file.readinto(target[done:])
            if not got:
                raise UserError(
                    f"tensor file {path} ends while it is read; it was changed or cut off: "
                    "fetch it again."
                )
            done += got
    return array
