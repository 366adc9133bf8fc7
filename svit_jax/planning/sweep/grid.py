"""What a sweep varies: meshes, rows a device and remat policies, for configs on topologies."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from svit_jax.planning.plan import Plan
from svit_jax.sharding.mesh import MESH_AXES

Mesh = tuple[int, ...]
"""Devices along each of MESH_AXES."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One step to be planned. `rows` are those that the devices which share rows go through at a
    time, so a step has `rows` x replica x fsdp x `accumulate` of them. `overrides` are the user's
    own changes of the config, which all candidates have."""

    config: str
    overrides: tuple[str, ...]
    topology: str
    mesh: Mesh
    rows: int
    accumulate: int
    remat: str

    @property
    def batch_size(self) -> int:
        return self.rows * self.accumulate * row_devices(self.mesh)

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(MESH_AXES, self.mesh, strict=True))

    @property
    def settings(self) -> tuple[str, ...]:
        """The config's keys that make it this candidate, as section.key=value."""
        return (
            *self.overrides,
            *(f"mesh.{axis}={size}" for axis, size in self.sizes.items()),
            f"data.batch_size={self.batch_size}",
            f"train.accumulate={self.accumulate}",
            f"model.compute.remat_decoder={self.remat}",
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a candidate: a plan, or the reason why there is none. `skipped`: the trainer
    would refuse it, so it was not compiled."""

    candidate: Candidate
    plan: Plan | None = None
    reason: str = ""
    skipped: bool = False

    @property
    def fits(self) -> bool:
        return self.plan is not None and self.plan.memory.fits


@dataclasses.dataclass(frozen=True)
class Space:
    """What candidates are made of. `batch_sizes` and `accumulates` are the configs' own, by config;
    `devices` how many there are on each topology, by its name.

    The rows of a step stay the config's, and rows a device decide how many microbatches they make;
    with `grow` microbatches stay, and the step's rows follow. `axes` are the sizes of a mesh axis
    that are tried (none given: all)."""

    batch_sizes: Mapping[str, int]
    accumulates: Mapping[str, int]
    devices: Mapping[str, int]
    rows: Sequence[int]
    remats: Sequence[str]
    overrides: tuple[str, ...] = ()
    grow: bool = False
    axes: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)

    def meshes(self, topology: str) -> list[Mesh]:
        """Those of the topology's devices, most rows apart first: `fsdp`, then `replica`."""
        found = [
            mesh
            for mesh in factorings(self.devices[topology], len(MESH_AXES))
            if all(mesh[MESH_AXES.index(axis)] in sizes for axis, sizes in self.axes.items())
        ]
        return sorted(found, key=lambda mesh: (-row_devices(mesh), mesh[0], mesh[3]))

    def candidate(
        self, config: str, topology: str, mesh: Mesh, rows: int, remat: str
    ) -> Candidate | Outcome:
        """The candidate, or why there is none."""
        given, at_once = self.batch_sizes[config], rows * row_devices(mesh)
        accumulate = self.accumulates[config] if self.grow else max(1, given // at_once)
        found = Candidate(config, self.overrides, topology, mesh, rows, accumulate, remat)
        if self.grow or found.batch_size == given:
            return found
        reason = (
            f"a step has {rows_text(given)}, and {rows} at a time on each of replica x fsdp = "
            f"{row_devices(mesh)} are {at_once}, which does not divide them: give other --rows, or "
            "--grow-batch"
        )
        return Outcome(found, reason=reason, skipped=True)

    def candidates(self) -> Iterator[Candidate | Outcome]:
        """The whole grid."""
        for config, topology in itertools.product(self.batch_sizes, self.devices):
            rest = itertools.product(self.meshes(topology), self.remats, self.rows)
            for mesh, remat, rows in rest:
                yield self.candidate(config, topology, mesh, rows, remat)


def row_devices(mesh: Mesh) -> int:
    """How many devices (or groups of them, which share rows) have rows of their own."""
    replica, fsdp, _, _ = mesh
    return replica * fsdp


def factorings(number: int, factors: int) -> Iterator[Mesh]:
    """All ways to write a number as a product of so many factors, in order."""
    if factors == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in factorings(number // first, factors - 1):
                yield (first, *rest)


def rows_text(rows: int | float) -> str:
    """ "1 row", "2 rows"."""
    return "1 row" if rows == 1 else f"{rows:g} rows"


def mesh_text(sizes: Mapping[str, Any]) -> str:
    """Axes of more than one device: "fsdp 32, tensor 8"."""
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one device"
