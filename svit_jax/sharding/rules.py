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


def parts(mesh: Mesh | AbstractMesh, axes: MeshAxes) -> int:
    """Into how many parts these mesh axes cut an array's axis."""
    return math.prod(mesh.shape[name] for name in axis_names(axes))


def named_sharding(
    mesh: Mesh | AbstractMesh, rules: Rules, logical: Logical, shape: tuple[int, ...], what: str
) -> NamedSharding:
    """The sharding of one array; mesh axes that do not divide a size are an error that names it."""
    partition = spec(rules, logical, what)
    for name, size, axes in zip(logical, shape, partition, strict=True):
        names = axis_names(axes)
        if size % parts(mesh, axes):
            raise UserError(
                f"{what}: axis '{name}' of size {size} does not divide over mesh axes {names} of "
                f"{parts(mesh, axes)} devices; change the mesh or the rules."
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


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the rows, tokens and heads of a function being traced lie, for code that is written a
    device at a time (`shard_map`). `mesh` None: on one device."""

    mesh: Mesh | None
    platform: str
    rows: MeshAxes = None
    tokens: MeshAxes = None
    heads: MeshAxes = None

    def parts(self, axes: MeshAxes) -> int:
        return 1 if self.mesh is None else parts(self.mesh, axes)

    def require(self, platform: str, obstacle: str | None, setting: str) -> None:
        """Raises UserError where a setting wants another platform, or something is in its way."""
        if platform != self.platform:
            obstacle = f"these devices are of platform '{self.platform}'"
        if obstacle:
            raise UserError(f"{setting} can't run here: {obstacle}; use auto or xla.")

    def indivisible(self, rows: int, heads: int) -> str | None:
        """What does not divide over the mesh, said as a reason; None where all does."""
        for name, size, axes in (("rows", rows, self.rows), ("heads", heads, self.heads)):
            if size % self.parts(axes):
                return f"{size} {name} do not divide over {self.parts(axes)} devices"
        return None


def placement(logical: Logical) -> Placement:
    """Where arrays with these logical axes (rows, tokens, heads) lie by the active rules."""
    active = _active.get()
    if active is None:
        return Placement(None, jax.default_backend())
    mesh, rules = active
    return Placement(mesh, mesh.devices.flat[0].platform, *spec(rules, logical))
