"""Logical axes -> mesh axes: one frozen dataclass, so a misspelt axis is an AttributeError."""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipeline.common.errors import UserError
from svit_jax.sharding.mesh import FSDP, REPLICA, SEQUENCE, TENSOR

MeshAxes = str | tuple[str, ...] | None
Logical = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Where each logical axis lies. Parameters: fully sharded over `fsdp`, split over `tensor`
    (Megatron's columns and rows). Activations: rows over the batch axes, tokens over `sequence`;
    the tower's pictures over every axis, since a tower pass needs no neighbour."""

    layers: MeshAxes = None
    embed: MeshAxes = FSDP
    heads: MeshAxes = TENSOR
    kv_heads: MeshAxes = TENSOR
    head_dim: MeshAxes = None
    mlp: MeshAxes = TENSOR
    vocab: MeshAxes = TENSOR
    vision_embed: MeshAxes = FSDP
    patches: MeshAxes = None
    lora_rank: MeshAxes = None

    batch: MeshAxes = (REPLICA, FSDP)
    pictures: MeshAxes = (REPLICA, FSDP, TENSOR, SEQUENCE)
    length: MeshAxes = SEQUENCE
    act_embed: MeshAxes = None
    act_heads: MeshAxes = TENSOR
    act_mlp: MeshAxes = TENSOR
    act_vocab: MeshAxes = TENSOR


def axis_names(placed: MeshAxes) -> tuple[str, ...]:
    """The mesh axes that one logical axis is split over."""
    return (placed,) if isinstance(placed, str) else placed or ()


def spec(rules: Rules, logical: Logical, what: str = "an array") -> P:
    """The PartitionSpec of an array with these logical axes (None: not sharded).

    Raises UserError when two of its axes would lie on one mesh axis.
    """
    placed = tuple(None if name is None else getattr(rules, name) for name in logical)
    seen: dict[str, str] = {}
    for name, axes in zip(logical, placed, strict=True):
        for axis in axis_names(axes):
            if axis in seen:
                raise UserError(
                    f"{what}: logical axes '{seen[axis]}' and '{name}' both lie on mesh axis "
                    f"'{axis}'; change one of them in the sharding rules."
                )
            seen[axis] = str(name)
    return P(*placed)


def named_sharding(
    mesh: Mesh | AbstractMesh, rules: Rules, logical: Logical, shape: tuple[int, ...], what: str
) -> NamedSharding:
    """The sharding of one array; mesh axes that do not divide a size are an error that names it."""
    partition = spec(rules, logical, what)
    for name, size, axes in zip(logical, shape, partition, strict=True):
        names = axis_names(axes)
        parts = math.prod(mesh.shape[axis] for axis in names)
        if size % parts:
            raise UserError(
                f"{what}: axis '{name}' of size {size} does not divide over mesh axes {names} of "
                f"{parts} devices; change the mesh or the rules."
            )
    return NamedSharding(mesh, partition)


def tree_shardings(
    mesh: Mesh | AbstractMesh,
    rules: Rules,
    arrays: Mapping[str, Any],
    logical: Mapping[str, Logical],
) -> dict[str, NamedSharding]:
    """A sharding for each named array (anything with a shape) from its logical axes."""
    return {
        name: named_sharding(mesh, rules, logical[name], tuple(array.shape), name)
        for name, array in arrays.items()
    }


_active: contextvars.ContextVar[tuple[Mesh, Rules] | None] = contextvars.ContextVar(
    "active mesh and rules", default=None
)


@contextlib.contextmanager
def active_rules(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """While a function is traced in here, `shard` constrains its arrays to this mesh."""
    token = _active.set((mesh, rules))
    try:
        yield
    finally:
        _active.reset(token)


def shard(x: jax.Array, *logical: str | None) -> jax.Array:
    """`x`, constrained to lie as the active rules say; unchanged where no mesh is active."""
    active = _active.get()
    if active is None:
        return x
    mesh, rules = active
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(rules, logical)))
