"""Slices that aren't there: devices to compile for, from names such as "v5e:16x16" and "h100:8"."""

import dataclasses
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from data_pipeline.common.errors import UserError
from svit_jax.chips import Chip, find_chip

INSTALL = "pip install 'svit-jax[plan]'"


@dataclasses.dataclass(frozen=True)
class Generation:
    """How the compiler and the devices name a generation of TPUs, how many dimensions its slices
    have, the shapes that people rent, and what Cloud TPU's names (`v5litepod-256`) count: chips or
    cores, of which a chip has two."""

    name: str
    device_kind: str
    dimensions: int
    shapes: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    counts_cores: bool = False


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
# A v4 lists the two cores of a chip as devices unless asked for "megacore", which pods run.
_MEGACORE = (("chip_config_name", "megacore"),)
GENERATIONS = {
    "v4": Generation("v4", "TPU v4", 3, _CUBES, _MEGACORE, counts_cores=True),
    "v5e": Generation("v5e", "TPU v5 lite", 2, _FLAT),
    "v5p": Generation("v5p", "TPU v5", 3, _CUBES, counts_cores=True),
    "v6e": Generation("v6e", "TPU v6 lite", 2, _FLAT),
    "tpu7x": Generation("tpu7x", "TPU7x", 3, _CUBES),
}
_ALIASES = {"v5litepod": "v5e", "v7x": "tpu7x", "ironwood": "tpu7x"}
_GPUS = {
    "a100": "NVIDIA A100",
    "h100": "NVIDIA H100",
    "h200": "NVIDIA H200",
    "rtx4090": "NVIDIA GeForce RTX 4090",
}
SIMULATION_FLAGS = (
    "--xla_disable_hlo_passes=while-loop-invariant-code-motion,"
    "while-loop-expensive-invariant-code-motion"
)
"""XLA's flags where CPU devices stand in for GPUs. CPUs multiply no bfloat16: each weight is made
float32 first, and these passes would do it for all layers at once, ahead of the loop over them,
which is 26 GiB of a 7B that no GPU needs."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape: `shape` in chips, empty for GPUs; `count` devices in all."""

    name: str
    device_kind: str
    chip: Chip
    slices: int
    shape: tuple[int, ...]
    count: int
    generation: Generation | None

    @property
    def on_tpu(self) -> bool:
        return self.generation is not None


def parse_topology(text: str, slices: int = 1) -> Topology:
    """The topology of a name: "v5e:16x16", "2xv5e:16x16" (two slices), "v6e-256", "h100:8".

    Raises UserError for a generation or shape that there is none of.
    """
    found = re.fullmatch(r"(?:(\d+)x(?=[a-z]))?([a-z]\w*)[:\-](\d+(?:x\d+)*)", text.lower())
    if not found:
        raise UserError(
            f"topology '{text}' is not understood; write GENERATION:SHAPE, such as v5e:16x16, "
            "2xv5e:16x16 for two slices, v4:4x4x4 or h100:8."
        )
    slices *= int(found[1] or 1)
    name, sizes = _ALIASES.get(found[2], found[2]), tuple(map(int, found[3].split("x")))
    if name in _GPUS:
        return _gpus(text, name, slices, sizes)
    if name not in GENERATIONS:
        raise UserError(
            f"topology '{text}': there is no '{found[2]}'; choose one of "
            f"{', '.join((*GENERATIONS, *_GPUS))}."
        )
    generation = GENERATIONS[name]
    if len(sizes) == 1 and "-" in text:
        sizes = _shape_of(text, generation, sizes[0])
    _check(text, generation, sizes)
    chip = find_chip(generation.device_kind)
    assert chip
    cores = 2 if name == "tpu7x" else 1
    shape = "x".join(map(str, sizes))
    prefix = f"{slices}x" if slices > 1 else ""
    return Topology(
        f"{prefix}{name}:{shape}",
        generation.device_kind,
        chip,
        slices,
        sizes,
        slices * cores * math.prod(sizes),
        generation,
    )


def _gpus(text: str, name: str, slices: int, sizes: tuple[int, ...]) -> Topology:
    kind = _GPUS[name]
    chip = find_chip(kind)
    assert chip
    count = slices * math.prod(sizes)
    if count > chip.node and count % chip.node:
        raise UserError(
            f"topology '{text}': {count} GPUs are no whole number of nodes of {chip.node}; give "
            f"up to {chip.node}, or a multiple of them."
        )
    return Topology(f"{name}:{count}", kind, chip, 1, (), count, None)


def _shape_of(text: str, generation: Generation, count: int) -> tuple[int, ...]:
    """The shape of a Cloud TPU name, `v5p-128`, which counts cores on some generations."""
    chips = count // 2 if generation.counts_cores else count
    for shape in generation.shapes:
        sizes = tuple(map(int, shape.split("x")))
        if math.prod(sizes) == chips:
            return sizes
    raise UserError(
        f"topology '{text}': no usual slice of {generation.name} has {chips} chips; give a shape, "
        f"{generation.name}: and one of {', '.join(generation.shapes)}."
    )


def _check(text: str, generation: Generation, sizes: tuple[int, ...]) -> None:
    halves = all(size % 2 == 0 for size in sizes[:2])
    if len(sizes) != generation.dimensions or not halves or 0 in sizes:
        raise UserError(
            f"topology '{text}': {generation.name} has slices of {generation.dimensions} "
            "dimensions, the first two even (a host holds 2 x 2 chips), such as "
            f"{', '.join(generation.shapes)}."
        )


def topology_devices(topology: Topology) -> list[Any]:
    """Devices to compile for: TPUs from libtpu's own description; in place of GPUs, this process's
    simulated CPU devices (JAX must have started with enough of them).

    Raises UserError where libtpu is missing, or does not know the topology.
    """
    if topology.generation is None:
        devices = jax.devices("cpu")
        if len(devices) < topology.count:
            raise UserError(
                f"topology {topology.name} wants {topology.count} simulated devices and JAX "
                f"started with {len(devices)}; start it with "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={topology.count}."
            )
        return list(devices[: topology.count])
    require_libtpu()
    shape = "x".join(map(str, topology.shape))
    options: dict[str, Any] = dict(topology.generation.options)
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    _quieten_libtpu()
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{topology.generation.name}:{shape}", **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"topology {topology.name}: libtpu refuses it ({error}).") from error
    return list(found.devices)


def require_libtpu() -> None:
    """Raises UserError where the TPU compiler is not installed."""
    if libtpu_version() is None:
        raise UserError(
            f"compiling for TPUs needs libtpu, which runs without a TPU: {INSTALL}. GPUs, such as "
            "--topology h100:8, need no more than what is here."
        )


def libtpu_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        return None


def _quieten_libtpu() -> None:
    """libtpu looks for the TPUs of this machine when it loads: here it need not."""
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
    ):
        os.environ.setdefault(name, value)
