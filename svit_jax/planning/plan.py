"""What a step will cost on a slice: the one record that `svit plan` prints, sweeps and compares."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's memory, from the compiler's own figures (docs/planning.md says which).

    `parts` are what it is made of (weights, optimizer, batch, gradients, activations, copies of
    weights, other temporaries, program) and add up to `total`; `capacity` is what the device has
    for a program."""

    total: int
    capacity: int
    parts: Mapping[str, int]

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of a kind over the same mesh axes: how often a step runs them, loops counted,
    the bytes that one device sends for all of them, and how many of them the compiler runs beside
    other work. `network` is "ici" or "dcn" (between slices); "nvlink" or "infiniband" on GPUs."""

    kind: str
    axes: tuple[str, ...]
    network: str
    count: int
    bytes: int
    overlapped: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The roofline's seconds of one step. `seconds` is the estimate; `limits` are the seconds that
    each resource is busy ("matrix units", "HBM", "interconnect", ...) and `bound` the largest.
    `tokens_per_second` counts a device's share of the real tokens, and `mfu` model FLOPs.
    `exposed` are the seconds in which a device does nothing but wait for others."""

    seconds: float
    limits: Mapping[str, float]
    bound: str
    tokens_per_second: float
    mfu: float
    exposed: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """One compiled step. `config` is the file (with its argument) and `overrides` what was changed
    in it; `mesh` has the axes' sizes, `work` what a step does (rows, row_length, tokens, samples,
    pictures, accumulate), `choices` what a sweep varies (mode, remat_decoder, remat_vision,
    rows_per_device), `flops` a device's model and hardware FLOPs, `departures` each difference from
    the paper's recipe as a sentence (none: the recipe stands), `versions` jax, jaxlib, libtpu."""

    config: str
    overrides: tuple[str, ...]
    topology: str
    devices: int
    device_kind: str
    mesh: Mapping[str, int]
    work: Mapping[str, float]
    choices: Mapping[str, Any]
    memory: Memory
    collectives: tuple[Collective, ...]
    flops: Mapping[str, float]
    estimate: Estimate
    departures: tuple[str, ...]
    compile_seconds: float
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote, read back from JSON's types."""
        return cls(
            **{
                **fields,
                "overrides": tuple(fields["overrides"]),
                "memory": Memory(**fields["memory"]),
                "collectives": tuple(
                    Collective(**{**row, "axes": tuple(row["axes"])})
                    for row in fields["collectives"]
                ),
                "estimate": Estimate(**fields["estimate"]),
                "departures": tuple(fields["departures"]),
            }
        )
