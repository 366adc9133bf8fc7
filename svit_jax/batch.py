"""Batch as a pytree, and its way onto the devices."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipeline.loading.batch import Batch
from svit_jax.sharding.rules import Logical, Rules, named_sharding

LOGICAL: dict[str, Logical] = {
    "tokens": ("batch", "length"),
    "loss_weights": ("batch", "length"),
    "segment_ids": ("batch", "length"),
    "positions": ("batch", "length"),
    "images": ("batch", None, None, None, None),
    "vision_index": ("batch", "length"),
}

_FIELDS = tuple(field.name for field in dataclasses.fields(Batch))


def _flatten(batch: Batch) -> tuple[tuple[Any, ...], None]:
    return tuple(getattr(batch, name) for name in _FIELDS), None


def _unflatten(_: None, leaves: Iterable[Any]) -> Batch:
    # Past __init__, whose annotations hold on the host only: here the leaves are device arrays,
    # shapes, tracers, or whatever else JAX maps a tree to.
    batch = object.__new__(Batch)
    for name, leaf in zip(_FIELDS, leaves, strict=True):
        object.__setattr__(batch, name, leaf)
    return batch


jax.tree_util.register_pytree_node(Batch, _flatten, _unflatten)


def with_fields(batch: Batch, **fields: Any) -> Batch:
    """The batch with these fields in place of its own; its leaves may be on the devices."""
    leaves = {name: getattr(batch, name) for name in _FIELDS}
    return _unflatten(None, (leaves | fields).values())


def batch_shapes(
    rows: int, length: int, pictures: int, image_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The global shape and dtype of every field, by name."""
    tokens = (rows, length)
    images = (rows, pictures, image_size, image_size, 3)
    return {
        "tokens": jax.ShapeDtypeStruct(tokens, np.int32),
        "loss_weights": jax.ShapeDtypeStruct(tokens, np.float32),
        "segment_ids": jax.ShapeDtypeStruct(tokens, np.int32),
        "positions": jax.ShapeDtypeStruct(tokens, np.int32),
        "images": jax.ShapeDtypeStruct(images, np.uint8),
        "vision_index": jax.ShapeDtypeStruct(tokens, np.int32),
    }


class BatchPlacement:
    """Where a batch lies, and which of its rows this host must make. `put` takes batches of other
    lengths too, where the mesh divides them.

    The sharding is asked, never the process index: hosts that share rows (`tensor` or `sequence`
    across hosts) each make them, and a batch is the same on any number of hosts.
    """

    def __init__(self, mesh: Mesh, rules: Rules, shapes: dict[str, jax.ShapeDtypeStruct]):
        self.shapes = shapes
        self.shardings = {
            name: named_sharding(mesh, rules, LOGICAL[name], shape.shape, f"batch field {name}")
            for name, shape in shapes.items()
        }
        rows = shapes["tokens"].shape[0]
        indices = self.shardings["tokens"].addressable_devices_indices_map(shapes["tokens"].shape)
        needed = {row for index in indices.values() if index for row in range(rows)[index[0]]}
        self.local_rows = tuple(sorted(needed))
        self._place = {row: place for place, row in enumerate(self.local_rows)}

    def abstract(self) -> Batch:
        """The batch as shapes that know their shardings, to compile for."""
        return _unflatten(
            None, (self.shapes[name].update(sharding=self.shardings[name]) for name in _FIELDS)
        )

    def put(self, batch: Batch) -> Batch:
        """The global batch on the devices, from this host's rows (in the order of `local_rows`)."""

        def globalise(name: str) -> jax.Array:
            local = getattr(batch, name)
            shape = (self.shapes[name].shape[0], *local.shape[1:])

            def piece(index: Any) -> np.ndarray:
                places = [self._place[row] for row in range(shape[0])[index[0]]]
                return local[places][(slice(None), *index[1:])]

            return jax.make_array_from_callback(shape, self.shardings[name], piece)

        return _unflatten(None, map(globalise, _FIELDS))
