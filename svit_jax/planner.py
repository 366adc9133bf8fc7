"""From a config to a `Plan`: the real step, compiled for a slice that isn't there, and read."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import write_text
from svit_jax.batch import LOGICAL, batch_shapes
from svit_jax.config import load_config, run_config
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.plan_compiler import STEPS, compile_step
from svit_jax.planning.buffers import assignment_is_written, read_assignment
from svit_jax.planning.hlo import Module, parse
from svit_jax.planning.memory import DoesNotFitError, excess, plan_memory, step_memory
from svit_jax.planning.network import Network
from svit_jax.planning.plan import Estimate, Memory, Plan
from svit_jax.planning.roofline import Schedule, walk
from svit_jax.planning.temporaries import parameter_sizes, temporary_parts
from svit_jax.planning.topology import Topology, libtpu_version, parse_topology, topology_devices
from svit_jax.sharding.mesh import MESH_AXES, REPLICA, check_slices, make_mesh
from svit_jax.sharding.rules import parts, tree_shardings
from svit_jax.training.accumulation import check_split
from svit_jax.training.flops import StepFlops, Work, step_flops
from svit_jax.training.inputs import PAPER_SAMPLES
from svit_jax.training.objective import check_groups
from svit_jax.training.optimizer import trainable_paths
from svit_jax.training.program import compile_run, plan_run
from svit_jax.training.settings import RunConfig

# Of SVIT-mix-665K, since a plan reads no data (benchmarks/results/packing.json): tokens and
# pictures of a dialogue, how full packed rows are; about a fifth of the tokens carry loss.
DIALOGUE_TOKENS, DIALOGUE_PICTURES = 923, 0.94
FILLED = 0.933
TARGETS = 0.2
# Of stage 1's captions, each with a picture, four fill a row of 2560 (docs/training.md).
CAPTION_TOKENS = 597

Say = Callable[[str], None]


def plan_config(
    config_file: str,
    overrides: Sequence[str] = (),
    topology: str = "v5e:16x16",
    mesh: str = "",
    slices: int = 1,
    hlo_file: str = "",
    say: Say = lambda text: None,
    machine_code: bool = False,
) -> Plan:
    """The plan of a config's step on a topology. `mesh` is "fsdp=64,tensor=4", in place of the
    config's (axes that it does not name are 1); `hlo_file` keeps the compiled text; `say` is told
    what goes on. Of a step for TPUs `machine_code` is made only if asked for: minutes more, for
    its size and for what that stage alone refuses.

    Raises UserError for what can't be: a mesh that doesn't fit the slice, a missing compiler; and
    DoesNotFitError for a step that needs more memory than the compiler grants.
    """
    place = parse_topology(topology, slices)
    overrides = (*overrides, *mesh_overrides(mesh))
    config = run_config(load_config(config_file, overrides), with_data=False)
    config = with_attention_for(place, config)
    grid = make_mesh(config.mesh, topology_devices(place))
    axes = dict(zip(MESH_AXES, grid.devices.shape, strict=True))
    say(f"compiling {config_file} for {place.name} ({_axes_line(axes)}); this takes minutes")
    started = time.perf_counter()
    if place.on_tpu:
        compiled = _for_tpu(config, config_file, overrides, place, grid, machine_code)
    else:
        compiled = _simulated(config, place, grid)
    seconds = time.perf_counter() - started
    module = compiled.module
    if hlo_file:
        write_text(Path(hlo_file), compiled.text)
    network = Network(place.chip, list(grid.devices.flat), place.shape)
    schedule = walk(module, place.chip, network, axes, config.train.compiler_options)
    work, flops = step_work(config), model_flops(config)
    share = 1 / place.count
    model = share * _step_work(config, work).times(flops.model)
    return Plan(
        config=config_file,
        overrides=overrides,
        topology=place.name,
        devices=place.count,
        device_kind=place.device_kind,
        mesh=axes,
        work=work,
        choices=_choices(config, axes),
        memory=compiled.memory,
        collectives=schedule.collectives,
        flops={"model": model, "hardware": schedule.flops},
        estimate=estimate(schedule, model, work["tokens"] * share, place),
        departures=tuple(departures(config, work)),
        compile_seconds=round(seconds, 1),
        versions=compiler_versions(place),
    )


def with_attention_for(place: Topology, config: RunConfig) -> RunConfig:
    """The config; for GPUs with XLA's attention, since the CPUs that stand in for them have no such
    kernel, and one of their own. Raises UserError where a kernel is asked for by name."""
    if place.on_tpu:
        return config
    if config.compute.attention not in ("auto", "xla"):
        raise UserError(
            f"model.compute.attention={config.compute.attention}: simulated GPUs have no such "
            "kernel; plan with auto, which takes XLA's attention in its place."
        )
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, attention="xla"))


def check_state(config: RunConfig, mesh: AbstractMesh, slices: int) -> None:
    """Raises UserError where the trainer would refuse the mesh; nothing is compiled."""
    check_slices(mesh.shape[REPLICA], slices)
    plan_run(config, STEPS, mesh)


def check_batch(config: RunConfig, mesh: AbstractMesh) -> None:
    """Raises UserError where a step's rows can't be cut as the config and the mesh want it."""
    data, rules = config.data, config.rules
    check_split(data.batch_size, config.train.accumulate, parts(mesh, rules.batch))
    check_groups(data.batch_size, config.train.loss_groups)
    image_size = config.model.vision.image_size
    shapes = batch_shapes(data.batch_size, data.row_length, data.pictures_per_row, image_size)
    tree_shardings(mesh, rules, shapes, LOGICAL)


def mesh_overrides(mesh: str) -> tuple[str, ...]:
    """The config's keys for "fsdp=64,tensor=4": all four axes, those not named being 1."""
    if not mesh:
        return ()
    given: dict[str, str] = {}
    for part in mesh.split(","):
        axis, found, size = part.strip().partition("=")
        if axis not in MESH_AXES or not found:
            raise UserError(
                f"--mesh has '{part}'; write it as AXIS=SIZE, of the axes {', '.join(MESH_AXES)}."
            )
        given[axis] = size
    return tuple(f"mesh.{axis}={given.get(axis, '1')}" for axis in MESH_AXES)


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """What a plan is made of: the scheduled program, as text and as read, and its memory."""

    text: str
    module: Module
    memory: Memory


def _simulated(config: RunConfig, place: Topology, grid: Mesh) -> _Compiled:
    """The step for this process's CPU devices, which stand in for GPUs."""
    step: Any = compile_run(config, config.train.steps or STEPS, grid)[2]
    text = step.as_text()
    module = parse(text)
    return _Compiled(text, module, plan_memory(step, module, place.chip.usable_memory))


def _for_tpu(
    config: RunConfig,
    config_file: str,
    overrides: Sequence[str],
    place: Topology,
    grid: Mesh,
    machine_code: bool,
) -> _Compiled:
    """The step for a slice. The compiler is ended when it has written a program that fits; with one
    that doesn't, it goes on to refuse it, or to find another that needs less."""
    written: list[_Compiled] = []

    def enough() -> bool:
        if not written and not machine_code and assignment_is_written(folder):
            written.extend(_written(config, place, grid, folder))
        return bool(written) and written[0].memory.fits

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ending = compile_step(config_file, overrides, place, folder, enough)
        if written and written[0].memory.fits:
            return written[0]
        found = _written(config, place, grid, folder, ending.code_bytes)
    if not ending.refusal:
        return found[0]
    needs = excess(ending.refusal)
    if not needs:
        raise RuntimeError(ending.refusal)
    raise DoesNotFitError(
        f"{place.name} does not fit: the compiler needs {needs[0]} of {needs[1]} a device; "
        "take a mesh that splits more, fewer rows a device, or more rematerialisation.",
        found[0].memory if found else None,
    )


def _written(
    config: RunConfig, place: Topology, grid: Mesh, folder: Path, code_bytes: int = 0
) -> list[_Compiled]:
    """What the TPU compiler wrote of a step; nothing where it did not come so far."""
    assignment, programs = read_assignment(folder), list(folder.glob("*.after_optimizations.txt"))
    if assignment is None or len(programs) != 1:
        return []
    text = programs[0].read_text()
    module = parse(text)
    trained = plan_run(config, STEPS, grid).abstract.trained.values()
    sizes = [parameter_sizes(x.shape, x.sharding.shard_shape(x.shape)) for x in trained]
    kinds = temporary_parts(assignment, module, sizes)
    memory = step_memory(module, place.chip.usable_memory, kinds, code_bytes)
    return [_Compiled(text, module, memory)]


def step_work(config: RunConfig) -> dict[str, float]:
    """What a step does, all devices together: rows, real tokens, dialogues, pictures."""
    data = config.data
    captions = data.template == "plain"
    length = min(CAPTION_TOKENS if captions else DIALOGUE_TOKENS, data.row_length)
    filled = FILLED * data.row_length if data.plan == "packed" else length
    tokens = float(data.batch_size * filled)
    samples = tokens / length
    pictures = samples * (1.0 if captions else DIALOGUE_PICTURES)
    return {
        "rows": float(data.batch_size),
        "row_length": float(data.row_length),
        "tokens": tokens,
        "samples": samples,
        "pictures": min(float(data.batch_size * data.pictures_per_row), pictures),
        "accumulate": float(config.train.accumulate),
    }


def _step_work(config: RunConfig, work: Mapping[str, float]) -> Work:
    """Attended pairs as of dialogues that are all as long as the mean."""
    length = work["tokens"] / max(1.0, work["samples"])
    pairs = work["tokens"] * (length + 1) / 2
    return Work(work["tokens"], pairs, work["pictures"], TARGETS * work["tokens"])


def model_flops(config: RunConfig) -> StepFlops:
    paths = flat_parameters(abstract_model(config.model))
    return step_flops(config.model, trainable_paths(config.optim.trainable, paths), config.compute)


def estimate(schedule: Schedule, model: float, tokens: float, place: Topology) -> Estimate:
    """`model` FLOPs and `tokens` are a device's share."""
    seconds = schedule.seconds
    return Estimate(
        seconds=seconds,
        limits=dict(schedule.busy),
        bound=max(schedule.busy, key=schedule.busy.__getitem__),
        tokens_per_second=tokens / seconds,
        mfu=model / seconds / place.chip.flops,
        exposed=schedule.exposed,
    )


def _choices(config: RunConfig, axes: Mapping[str, int]) -> dict[str, Any]:
    mode = "lora" if config.model.lora else "full"
    trains_decoder = any(
        pattern.startswith((".*", "decoder")) for pattern in config.optim.trainable
    )
    return {
        "mode": mode if trains_decoder else "projector",
        "remat_decoder": config.compute.remat_decoder,
        "remat_vision": config.compute.remat_vision,
        "rows_per_device": config.data.batch_size
        / (axes["replica"] * axes["fsdp"] * config.train.accumulate),
    }


def departures(config: RunConfig, work: Mapping[str, float]) -> list[str]:
    """Each difference from the recipe of SVIT-v1.5's stages (LLaVA-1.5's), as a sentence."""
    found = []
    captions = config.data.template == "plain"
    samples = 2 * PAPER_SAMPLES if captions else PAPER_SAMPLES
    if abs(work["samples"] / samples - 1) > 0.05:
        found.append(f"a step holds {work['samples']:.0f} samples, not {samples}")
    rate = 1e-3 if captions else 2e-4 if config.model.lora else 2e-5
    if not math.isclose(config.optim.learning_rate, rate):
        found.append(f"the learning rate is {config.optim.learning_rate:g}, not {rate:g}")
    lora = config.model.lora
    if lora and (lora.rank, lora.alpha) != (128, 256.0):
        found.append(f"LoRA has rank {lora.rank} and alpha {lora.alpha:g}, not 128 and 256")
    if any(pattern.startswith((".*", "tower")) for pattern in config.optim.trainable):
        found.append("the vision tower trains, which the recipe keeps frozen")
    if config.data.row_length < config.data.dialogue_length and not captions:
        found.append(
            f"rows of {config.data.row_length} tokens cut dialogues that the recipe lets reach "
            f"{config.data.dialogue_length}"
        )
    return found


def _axes_line(axes: Mapping[str, int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in axes.items() if size > 1) or "one device"


def compiler_versions(place: Topology) -> dict[str, str]:
    """What compiled it."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib")}
    libtpu = libtpu_version() if place.on_tpu else None
    return {**versions, "libtpu": libtpu} if libtpu else versions
