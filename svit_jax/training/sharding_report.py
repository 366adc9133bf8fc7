"""`svit train --explain-sharding`: where a run's parameters would lie, and what they would take."""

import dataclasses
import math
from typing import Any

import jax

from data_pipeline.common.errors import UserError
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.explain import Placement, abstract_mesh, explain
from svit_jax.sharding.mesh import MESH_AXES
from svit_jax.training.optimizer import trainable_paths
from svit_jax.training.program import plan_run
from svit_jax.training.settings import RunConfig


@dataclasses.dataclass(frozen=True)
class ShardingReport:
    """The mesh, every parameter's placement, and bytes a device: of the parameters that train,
    of the frozen ones, and of the optimizer's state (None where some parameter doesn't fit)."""

    mesh: dict[str, int]
    parameters: list[Placement]
    trained_bytes: int
    frozen_bytes: int
    optimizer_bytes: int | None

    def require_fit(self) -> None:
        """Raises UserError where a parameter doesn't divide over the mesh."""
        found = [f"{each.name}: {text}" for each in self.parameters for text in each.indivisible]
        if found:
            raise UserError(
                f"{len(found)} axes don't divide over the mesh, and a run would refuse it: "
                f"{'; '.join(found[:4])}; change the mesh or the rules."
            )

    def table(self) -> str:
        """A line for each parameter, and the totals."""
        header = ("parameter", "shape", "dtype", "logical axes", "spec", "bytes a device", "copies")
        rows = [
            (
                each.name,
                _joined(each.shape),
                each.dtype,
                _joined(each.logical),
                _joined(each.spec),
                f"{each.bytes_a_device:,}",
                str(each.copies),
                "; ".join(each.replicated),
            )
            for each in self.parameters
        ]
        lines = [(*header, "why replicated"), *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        optimizer = "?" if self.optimizer_bytes is None else f"{self.optimizer_bytes:,}"
        axes = ", ".join(f"{axis} {size}" for axis, size in self.mesh.items())
        return "\n".join(
            [
                f"mesh: {axes} ({math.prod(self.mesh.values())} devices)",
                *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines),
                f"bytes a device: {self.trained_bytes:,} of parameters that train, "
                f"{self.frozen_bytes:,} of frozen ones, {optimizer} of optimizer state",
            ]
        )


def report_sharding(config: RunConfig, devices: int = 0) -> ShardingReport:
    """Where the parameters of a run would lie on so many devices, none of which need be there.

    0 devices: as many as the mesh asks for, or, where an axis of it is -1, those of this machine.
    """
    asked = math.prod(config.mesh.shape)
    mesh = abstract_mesh(config.mesh, devices or (asked if asked > 0 else jax.device_count()))
    model = abstract_model(config.model)
    shapes, frozen_dtype = flat_parameters(model), jax.numpy.dtype(config.compute.frozen_dtype)
    trainable = trainable_paths(config.optim.trainable, shapes)
    arrays = {
        path: jax.ShapeDtypeStruct(shape.shape, shape.dtype if path in trainable else frozen_dtype)
        for path, shape in shapes.items()
    }
    placements = explain(mesh, config.rules, arrays, logical_axes(model))
    fits = not any(each.indivisible for each in placements)
    return ShardingReport(
        mesh=dict(zip(MESH_AXES, mesh.axis_sizes, strict=True)),
        parameters=placements,
        trained_bytes=sum(p.bytes_a_device for p in placements if p.name in trainable),
        frozen_bytes=sum(p.bytes_a_device for p in placements if p.name not in trainable),
        optimizer_bytes=_bytes(plan_run(config, 1, mesh).abstract.optimizer) if fits else None,
    )


def _bytes(tree: Any) -> int:
    """What the shards of abstract arrays take on a device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _joined(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) if value not in (None, "") else "-" for value in values) or "scalar"
