"""What answering would need and cost on a slice that isn't there: prefill, and a decoding step."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import write_text
from svit_jax.config import load_config, run_config
from svit_jax.inference.programs import Programs, Prompts, batch_parts
from svit_jax.inference.sampler import GREEDY, Settings
from svit_jax.inference.shapes import bucket_length
from svit_jax.models.int8 import attach_scales
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import Compute, Svit, SvitConfig, abstract_model
from svit_jax.planner import compiler_versions, mesh_overrides, with_attention_for
from svit_jax.planning.hlo import parse
from svit_jax.planning.memory import DoesNotFitError, excess, plan_memory
from svit_jax.planning.network import Network
from svit_jax.planning.plan import Collective, Memory
from svit_jax.planning.roofline import walk
from svit_jax.planning.topology import Topology, parse_topology, topology_devices
from svit_jax.planning.words import described_collectives, described_memory
from svit_jax.sharding.mesh import MESH_AXES, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Answering:
    """What is asked for: `rows` that decode together over a cache of `context` tokens each, `chunk`
    tokens a call; prompts of `prompt` tokens with so many `pictures`; "weights" or "all" (the cache
    too) in int8."""

    rows: int = 8
    context: int = 4096
    prompt: int = 1024
    pictures: int = 1
    int8: str = "none"
    chunk: int = 4

    def __post_init__(self) -> None:
        if min(self.rows, self.context, self.prompt) < 1 or self.prompt > self.context:
            raise UserError(
                f"{self.rows} rows of {self.context} tokens with prompts of {self.prompt}: each is "
                "at least 1, and a prompt no longer than the context."
            )


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """One compiled program: a device's memory, its collectives, and the roofline's seconds; of
    decoding they are those of a call of `Answering.chunk` tokens of each row."""

    memory: Memory
    collectives: tuple[Collective, ...]
    seconds: float
    limits: Mapping[str, float]
    bound: str
    exposed: float


@dataclasses.dataclass(frozen=True)
class GenerationPlan:
    """`prefill` is of one prompt (one for each part of the mesh that has rows of its own), `decode`
    of tokens of every row. A server needs the cache, which decoding's memory has, beside
    prefill's."""

    config: str
    topology: str
    devices: int
    device_kind: str
    mesh: Mapping[str, int]
    answering: Answering
    prompts_at_once: int
    prefill: ProgramPlan
    decode: ProgramPlan
    tokens_per_second: float
    tokens_per_second_of_a_row: float
    compile_seconds: float
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def plan_generation(
    config_file: str,
    overrides: Sequence[str],
    topology: str,
    mesh: str,
    answering: Answering,
    slices: int = 1,
    hlo_file: str = "",
    say: Say = lambda text: None,
) -> GenerationPlan:
    """The plan of a config's model, in bfloat16, answering on a topology. Raises UserError for what
    can't be, DoesNotFitError for what needs more memory than the compiler grants."""
    place = parse_topology(topology, slices)
    config = run_config(load_config(config_file, (*overrides, *mesh_overrides(mesh))), False)
    config = with_attention_for(place, config)
    grid = make_mesh(config.mesh, topology_devices(place))
    model = dataclasses.replace(config.model, lora=None)
    compute = Compute("bfloat16", attention=config.compute.attention)
    structure, parameters = _parameters(model, answering.int8, grid, config.rules)
    at_once = batch_parts(grid, config.rules)
    rows = -(-answering.rows // at_once) * at_once

    def programs(count: int) -> Programs:
        int8_cache = answering.int8 == "all"
        return Programs(structure, compute, grid, config.rules, -1, count, int8_cache)

    started = time.perf_counter()
    say(f"compiling prefill and decoding for {place.name}; this takes minutes")
    plans = {}
    lowered: dict[str, Callable[[], Any]] = {
        "prefill": lambda: _prefill(programs(at_once), parameters, model, answering, at_once),
        "decode": lambda: _decode(programs(rows), parameters, answering),
    }
    for name, lower in lowered.items():
        compiled = _compiled(lower, name, place)
        text = compiled.as_text()
        if hlo_file:
            file = Path(hlo_file)
            write_text(file.with_name(f"{file.stem}.{name}{file.suffix}"), text)
        plans[name] = _read(compiled, text, grid, place)
        say(f"{name}: {plans[name].seconds * 1000:.2f} ms by the roofline")
    step = plans["decode"].seconds / answering.chunk
    return GenerationPlan(
        config=config_file,
        topology=place.name,
        devices=place.count,
        device_kind=place.device_kind,
        mesh=dict(zip(MESH_AXES, grid.devices.shape, strict=True)),
        answering=dataclasses.replace(answering, rows=rows),
        prompts_at_once=at_once,
        prefill=plans["prefill"],
        decode=plans["decode"],
        tokens_per_second=rows / step,
        tokens_per_second_of_a_row=1 / step,
        compile_seconds=round(time.perf_counter() - started, 1),
        versions=compiler_versions(place),
    )


def _parameters(
    config: SvitConfig, int8: str, grid: Mesh, rules: Rules
) -> tuple[Svit, dict[str, jax.ShapeDtypeStruct]]:
    """The model and its parameters where they lie: in bfloat16, or the kernels in int8."""
    structure = abstract_model(config)
    kernels: set[str] = set()
    if int8 != "none":
        before = set(flat_parameters(structure))
        attach_scales(structure.decoder.blocks)
        scales = set(flat_parameters(structure)) - before
        kernels = {path.removesuffix("_scale") for path in scales}
    shapes = flat_parameters(structure)
    placed = tree_shardings(grid, rules, shapes, logical_axes(structure))

    def dtype(path: str) -> Any:
        if path in kernels:
            return jnp.int8
        return jnp.float32 if path.removesuffix("_scale") in kernels else jnp.bfloat16

    return structure, {
        path: jax.ShapeDtypeStruct(x.shape, dtype(path), sharding=placed[path])
        for path, x in shapes.items()
    }


def _prefill(
    programs: Programs, parameters: Any, config: SvitConfig, answering: Answering, count: int
) -> Any:
    length, size = bucket_length(answering.prompt), config.vision.image_size
    tokens = np.zeros((count, length), np.int32)
    one = np.zeros(count, np.int32)
    pictures = np.zeros((count, answering.pictures, size, size, 3), np.uint8)
    prompts: Any = (tokens, one, tokens, pictures, one)
    settings = Settings.of([GREEDY] * count)
    rows, chosen, limit = programs.abstract((Prompts(*prompts), settings, one))
    return programs.prefill.lower(parameters, rows, chosen, limit, slots=length)


def _decode(programs: Programs, parameters: Any, answering: Answering) -> Any:
    state = programs.abstract_state(bucket_length(answering.context))
    return programs.steps.lower(parameters, state, count=answering.chunk)


def _compiled(lower: Callable[[], Any], name: str, place: Topology) -> Any:
    try:
        return lower().compile()
    except jax.errors.JaxRuntimeError as error:
        found = excess(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not found:
            raise
        raise DoesNotFitError(
            f"{name} does not fit on {place.name}: the compiler needs {found[0]} of {found[1]} a "
            "device; take a mesh that splits more, fewer rows, a shorter context, or --int8.",
            None,
        ) from error


def _read(compiled: Any, text: str, grid: Mesh, place: Topology) -> ProgramPlan:
    module = parse(text)
    axes = dict(zip(MESH_AXES, grid.devices.shape, strict=True))
    schedule = walk(
        module, place.chip, Network(place.chip, list(grid.devices.flat), place.shape), axes
    )
    return ProgramPlan(
        memory=plan_memory(compiled, module, place.chip.usable_memory),
        collectives=schedule.collectives,
        seconds=schedule.seconds,
        limits=dict(schedule.busy),
        bound=max(schedule.busy, key=schedule.busy.__getitem__),
        exposed=schedule.exposed,
    )


def described_generation(plan: GenerationPlan) -> str:
    """The plan as a page of text."""
    asked = plan.answering
    axes = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items() if size > 1)
    prompts = "a prompt" if plan.prompts_at_once == 1 else f"{plan.prompts_at_once} prompts at once"
    length = bucket_length(asked.prompt)
    lines = [
        f"{plan.config} answering on {plan.topology}: {plan.devices} x {plan.device_kind}, mesh "
        f"{axes or 'of one device'}; int8: {asked.int8}",
        f"prefill: {prompts} of {length} tokens with {asked.pictures} pictures",
        *_program_lines(plan.prefill),
        f"decode, a call: {asked.chunk} tokens of each of {asked.rows} rows, over {asked.context} "
        "tokens of cache",
        *_program_lines(plan.decode),
        f"{plan.tokens_per_second:,.0f} tokens/s in all, {plan.tokens_per_second_of_a_row:,.1f} of "
        "a row; a prompt's first token after its prefill, if nothing else is under way",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    lines.append(f"compiled in {plan.compile_seconds:.0f} s with {versions}")
    return "\n".join(lines)


def _program_lines(plan: ProgramPlan) -> list[str]:
    busy = ", ".join(f"{name} {1000 * seconds:.2f}" for name, seconds in plan.limits.items())
    return [
        described_memory(plan.memory),
        f"estimate: {1000 * plan.seconds:.2f} ms, bound by {plan.bound} (busy, ms: {busy}; waiting "
        f"for others {1000 * plan.exposed:.2f})",
        *(described_collectives(plan.collectives) if plan.collectives else ()),
        "",
    ]
