"""Features of pictures that were seen before, kept on the devices by the pictures' content and
whose projector made them."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

_Key = tuple[int, bytes]
"""An adapter, and a picture's hash."""


class PictureCache:
    """The features of the pictures that were used last, of at most `size` bytes in all (one is
    always kept). `features` makes those of `batch` pictures, each for an adapter."""

    def __init__(
        self,
        features: Callable[
            [UInt8[np.ndarray, "B Y X 3"], Int32[np.ndarray, "B"]], Float[Array, "B P D"]
        ],
        batch: int,
        size: int,
    ):
        self._features, self._batch, self._size = features, batch, size
        self._kept: OrderedDict[_Key, jax.Array] = OrderedDict()
        self.hits = self.misses = self.bytes = 0

    def find(
        self, images: Sequence[UInt8[np.ndarray, "Y X 3"]], adapters: Sequence[int]
    ) -> list[Float[Array, "P D"]]:
        """The features of each picture by its adapter's projector; what is equal is made once."""
        keys = [
            (adapter, hashlib.sha256(image.tobytes()).digest())
            for image, adapter in zip(images, adapters, strict=True)
        ]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._kept}
        self.misses += len(new)
        self.hits += len(keys) - len(new)
        found = {key: self._kept[key] for key in keys if key not in new} | self._look(new)
        for key in keys:
            self._kept[key] = found[key]
            self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > self._size:
            self._kept.popitem(last=False)
        self.bytes = sum(each.nbytes for each in self._kept.values())
        return [found[key] for key in keys]

    def _look(self, new: dict[_Key, np.ndarray]) -> dict[_Key, jax.Array]:
        found: dict[_Key, jax.Array] = {}
        keys = list(new)
        for start in range(0, len(keys), self._batch):
            some = keys[start : start + self._batch]
            images = np.stack([new[key] for key in some])
            adapters = np.array([adapter for adapter, _ in some], np.int32)
            missing = 0, self._batch - len(some)
            none = 0, 0
            made = self._features(
                np.pad(images, (missing, none, none, none)), np.pad(adapters, missing)
            )
            found |= {key: made[row] for row, key in enumerate(some)}
        return found
