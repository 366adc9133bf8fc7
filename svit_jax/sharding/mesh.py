"""The device mesh: one code path from one CPU to a multi-slice pod."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from data_pipeline.common.errors import UserError

REPLICA, FSDP, TENSOR, SEQUENCE = "replica", "fsdp", "tensor", "sequence"
MESH_AXES = (REPLICA, FSDP, TENSOR, SEQUENCE)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be -1: all that the others leave."""

    replica: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.replica, self.fsdp, self.tensor, self.sequence)


def parse_mesh(text: str) -> MeshConfig:
    """ "fsdp=4,tensor=2" as a mesh; axes that aren't named keep their defaults, so that "tensor=2"
    and "" use all devices too. Raises UserError where it can't be read."""
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in MESH_AXES or axis in sizes or not size.removeprefix("-").isdigit():
            raise UserError(
                f"mesh '{text}': '{part}' is not an axis with its size; write it as "
                f"fsdp=4,tensor=2 (axes: {', '.join(MESH_AXES)})."
            )
        sizes[axis] = int(size)
    return MeshConfig(**sizes)


def resolve_shape(config: MeshConfig, device_count: int) -> tuple[int, ...]:
    """The axis sizes with -1 filled in. Raises UserError if they do not make `device_count`."""
    shape = list(config.shape)
    free = [axis for axis, size in enumerate(shape) if size == -1]
    fixed = math.prod(size for size in shape if size != -1)
    if len(free) > 1:
        raise UserError(f"mesh {config} has {len(free)} axes of -1; at most one axis may be -1.")
    if any(size < 1 and size != -1 for size in shape):
        raise UserError(f"mesh {config} has an axis below 1; give a positive size or -1.")
    if free and device_count % fixed == 0:
        shape[free[0]] = device_count // fixed
    if math.prod(shape) != device_count:
        raise UserError(
            f"mesh {dict(zip(MESH_AXES, config.shape, strict=True))} does not fit {device_count} "
            f"devices; the axis sizes must multiply to {device_count}."
        )
    return tuple(shape)


def check_slices(replica: int, slices: int) -> None:
    """Raises UserError where the slices of a job cannot lie along `replica`."""
    if replica % slices:
        raise UserError(
            f"mesh.replica={replica} is no multiple of the job's {slices} slices; "
            f"set mesh.replica to {slices}."
        )


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices` (all of them by default). Slices of a multi-slice job lie along
    `replica`, so that only gradients cross the data-centre network."""
    devices = list(jax.devices() if devices is None else devices)
    shape = resolve_shape(config, len(devices))
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) > 1:
        check_slices(shape[0], len(slices))
        within = shape[0] // len(slices), *shape[1:]
        across = len(slices), 1, 1, 1
        grid = _on_torus(mesh_utils.create_hybrid_device_mesh, within, across, devices)
    elif devices[0].platform == "tpu":
        grid = _on_torus(mesh_utils.create_device_mesh, shape, devices)
    else:
        grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _on_torus(make: Callable[..., np.ndarray], *what: Any) -> np.ndarray:
    """Each mesh axis along whole dimensions of a slice's torus; where the sizes don't allow that
    (32 x 8 on 16 x 16), along parts of them."""
    try:
        return make(*what)
    except NotImplementedError:
        return make(*what, allow_split_physical_axes=True)
