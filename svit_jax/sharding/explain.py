"""Where each parameter lies on a mesh, what of it a device holds, and why some is held twice."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh, AxisType

from svit_jax.sharding.mesh import MESH_AXES, MeshConfig, resolve_shape
from svit_jax.sharding.rules import Logical, Rules, axis_names, spec


@dataclasses.dataclass(frozen=True)
class Placement:
    """One array on a mesh. `copies` devices hold the same piece of it; `replicated` says why there
    are several: which mesh axes don't split the array, and why. `indivisible` is not empty where
    an axis doesn't divide: a run would stop with this text."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    logical: Logical
    spec: tuple[str, ...]
    bytes_a_device: int
    copies: int
    replicated: tuple[str, ...]
    indivisible: tuple[str, ...]


def abstract_mesh(config: MeshConfig, devices: int) -> AbstractMesh:
    """The mesh over so many devices that need not be there."""
    shape = resolve_shape(config, devices)
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def explain(
    mesh: AbstractMesh, rules: Rules, arrays: Mapping[str, Any], logical: Mapping[str, Logical]
) -> list[Placement]:
    """A placement for each named array (anything with shape and dtype) of these logical axes."""
    return [_place(mesh, rules, name, array, logical[name]) for name, array in arrays.items()]


def _place(mesh: AbstractMesh, rules: Rules, name: str, array: Any, logical: Logical) -> Placement:
    placed = [axis_names(axes) for axes in spec(rules, logical, name)]
    itemsize = np.dtype(array.dtype).itemsize
    refused: dict[str, str] = {}
    used: list[str] = []
    for axis, size, names in zip(logical, array.shape, placed, strict=True):
        parts = _devices(mesh, names)
        if size % parts:
            refused |= dict.fromkeys(names, f"'{axis}' of size {size} does not divide over {parts}")
        else:
            used += names
    idle = [axis for axis in mesh.axis_names if mesh.shape[axis] > 1 and axis not in used]
    copies = _devices(mesh, idle)
    general = _why(mesh, logical, placed)
    reasons: dict[str, list[str]] = {}
    for axis in idle:
        reasons.setdefault(refused.get(axis, general), []).append(axis)
    return Placement(
        name=name,
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype).name,
        logical=logical,
        spec=tuple("+".join(names) for names in placed),
        bytes_a_device=math.prod(array.shape) * itemsize * copies // mesh.size,
        copies=copies,
        replicated=tuple(f"{'+'.join(axes)}: {why}" for why, axes in reasons.items()),
        indivisible=tuple(dict.fromkeys(refused.values())),
    )


def _devices(mesh: AbstractMesh, axes: Iterable[str]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def _why(mesh: AbstractMesh, logical: Logical, placed: list[tuple[str, ...]]) -> str:
    """Why an array is not split over a mesh axis that nothing of it lies on."""
    if not logical:
        return "a scalar"
    named = list(zip((f"'{axis}'" for axis in logical), placed, strict=True))
    reasons = [
        f"{axis} lies on {'+'.join(names)}, which is 1"
        for axis, names in named
        if names and _devices(mesh, names) == 1
    ]
    unruled = [axis for axis, names in named if not names and axis != "'None'"]
    if unruled:
        reasons.append(f"no rule for {', '.join(unruled)}")
    return "; ".join(reasons) or "none of its axes lies there"
