"""The training loop: one code path from one CPU to a pod, one order of operations.

evaluate -> checkpoint -> next batch -> step -> log the previous step. The order is load-bearing: a
checkpoint of step s is taken before batch s is drawn, so the step alone is the data cursor, and
metrics are read one step late, so the host never waits for the device.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import content_hash, read_json, write_json
from data_pipeline.common.progress import progress_bar
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.images.transforms import AspectMode
from data_pipeline.loading.pipeline import ImageSpec, Loaded, make_loader
from data_pipeline.loading.plan import Plan, PlanKind, build_plan, plan_inputs
from data_pipeline.records.source import RecordSource, open_records
from data_pipeline.text.templates import Template, get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.checkpoints.manager import Checkpoints, load_parameters, newest_checkpoint
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.optimizer import OptimConfig, make_optimizer, trainable_paths
from svit_jax.training.state import StatePlan, TrainState, plan_state
from svit_jax.training.step import compile_step
from svit_jax.training.telemetry import MetricsLog, Stopwatch, last_metrics


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read and how it becomes batches. `batch_size` is the global number of rows."""

    train: str
    tokenizer: str
    batch_size: int
    row_length: int
    pictures_per_row: int
    split: str = "train"
    template: str = "v1"
    plan: PlanKind = "packed"
    image_mode: AspectMode = "pad"
    workers: int = 0
    max_bad: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`steps` updates, or, where it is 0, `epochs` over the plan's rows."""

    steps: int = 0
    epochs: float = 1.0
    seed: int = 0
    log_every: int = 10
    loss_chunk: int = 256


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`init`: "scratch", or the workdir or checkpoint that parameters come from; those that match
    `fresh` (regular expressions over paths) are initialised anew all the same."""

    init: str = "scratch"
    fresh: tuple[str, ...] = ()
    every: int = 500
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class RunConfig:
    model: SvitConfig
    compute: Compute
    mesh: MeshConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    rules: Rules = Rules()

    @property
    def identity(self) -> str:
        """Runs of equal identity train the same thing: what a workdir is bound to. Where arrays lie
        and how often things are logged or saved may change when a run goes on."""
        content = dataclasses.asdict(self)
        for section, keys in {
            "mesh": tuple(content["mesh"]),
            "rules": tuple(content["rules"]),
            "data": ("workers", "max_bad", "train", "tokenizer"),
            "train": ("log_every",),
            "checkpoint": ("every", "keep", "init"),
        }.items():
            for key in keys:
                del content[section][key]
        return content_hash(content)


Hook = Callable[[int, TrainState], None]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended: its last step, the seconds by activity of this process, the last metrics."""

    step: int
    steps: int
    seconds: dict[str, float]
    metrics: dict[str, float]
    bad_records: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A run's data, opened: what `make_loader` needs."""

    source: RecordSource
    tokenizer: Tokenizer
    template: Template
    plan: Plan

    @classmethod
    def open(cls, config: RunConfig, workdir: Path) -> "Inputs":
        data = config.data
        source = open_records(data.train, data.split)
        tokenizer = Tokenizer(data.tokenizer)
        if tokenizer.vocab_size > config.model.decoder.vocab:
            raise UserError(
                f"tokenizer {data.tokenizer} has {tokenizer.vocab_size} pieces, more than "
                f"model.decoder.vocab={config.model.decoder.vocab}; raise that key."
            )
        template = get_template(data.template)
        inputs = plan_inputs(
            source,
            tokenizer,
            template,
            patches=config.model.vision.patches,
            row_length=data.row_length,
            pictures_per_row=data.pictures_per_row,
            seed=config.train.seed,
            kind=data.plan,
        )
        folder = workdir / "plan"
        if (folder / "plan.json").exists():
            plan = Plan.load(folder, inputs)
        else:
            quarantine = Quarantine(workdir / "unplanned.jsonl", data.max_bad)
            plan = build_plan(source, tokenizer, template, inputs, quarantine).save(folder)
            if len(quarantine):
                quarantine.save()
        return cls(source, tokenizer, template, plan)


def claim_workdir(config: RunConfig, workdir: Path) -> None:
    """Binds the workdir to this run. Raises UserError where it belongs to another one."""
    marker = workdir / "run.json"
    content = json_ready(dataclasses.asdict(config))
    if marker.exists():
        found = read_json(marker, "run file")
        if found.get("identity") != config.identity:
            changed = sorted(_differences(found.get("config", {}), content))
            raise UserError(
                f"workdir {workdir} belongs to another run (it differs in "
                f"{', '.join(changed[:5]) or 'its identity'}); choose another workdir, or use the "
                "config that it was started with."
            )
        return
    write_json(marker, {"identity": config.identity, "config": content})


def json_ready(value: Any) -> Any:
    """Tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    return [json_ready(item) for item in value] if isinstance(value, (tuple, list)) else value


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(
                old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key
            )
    elif old != new:
        yield prefix


def initial_state(config: RunConfig, plan: StatePlan) -> TrainState:
    """Step 0, as `checkpoint.init` says."""
    init, fresh = config.checkpoint.init, config.checkpoint.fresh
    if init == "scratch":
        return plan.from_scratch(config.model, config.train.seed)
    abstract = {**plan.abstract.trained, **plan.abstract.frozen}
    parameters = load_parameters(newest_checkpoint(init), abstract)
    if fresh:
        scratch = plan.from_scratch(config.model, config.train.seed).parameters()
        parameters |= {path: scratch[path] for path in trainable_paths(fresh, abstract)}
    return plan.from_parameters(parameters)


def total_steps(config: RunConfig, plan: Plan) -> int:
    return config.train.steps or math.ceil(config.train.epochs * len(plan) / config.data.batch_size)


def compile_run(config: RunConfig, steps: int, mesh: Mesh) -> tuple[StatePlan, BatchPlacement, Any]:
    """The state's plan, the batch's placement and the compiled step of a run."""
    paths = flat_parameters(abstract_model(config.model))
    trainable = trainable_paths(config.optim.trainable, paths)
    optimizer = make_optimizer(config.optim, steps, trainable)
    plan = plan_state(config.model, trainable, optimizer, mesh, config.rules)
    data = config.data
    shapes = batch_shapes(
        data.batch_size, data.row_length, data.pictures_per_row, config.model.vision.image_size
    )
    placement = BatchPlacement(mesh, config.rules, shapes)
    step = compile_step(
        plan, config.compute, config.train.loss_chunk, mesh, config.rules, placement.abstract()
    )
    return plan, placement, step


def train(
    config: RunConfig, workdir: str | Path, hooks: tuple[tuple[int, Hook], ...] = ()
) -> RunResult:
    """Trains, or goes on with, the run in `workdir`. `hooks` are (every how many steps, function)."""
    workdir = Path(workdir)
    claim_workdir(config, workdir)
    watch = Stopwatch()
    inputs = Inputs.open(config, workdir)
    steps = total_steps(config, inputs.plan)
    data = config.data
    write_bundle(workdir, config.model, data.template, data.image_mode, data.tokenizer)
    mesh = make_mesh(config.mesh)
    with Checkpoints(workdir / "checkpoints", config.checkpoint.keep) as checkpoints:
        start = checkpoints.latest_step() or 0
        if start >= steps:
            return RunResult(start, steps, {}, last_metrics(workdir), ())
        with watch.timing("compile"):
            plan, placement, compiled = compile_run(config, steps, mesh)
        state = (
            _restore(checkpoints, plan, inputs.plan, start)
            if start
            else initial_state(config, plan)
        )
        loader = make_loader(
            inputs.plan,
            inputs.source,
            inputs.tokenizer,
            inputs.template,
            ImageSpec(config.model.vision.image_size, config.data.image_mode),
            config.data.batch_size,
            start,
            steps - start,
            local_rows=placement.local_rows,
            workers=config.data.workers,
            max_bad=config.data.max_bad,
        )
        log = MetricsLog(workdir, start)
        bad = Quarantine(workdir / "bad_records.jsonl")
        pending: tuple[int, dict[str, jax.Array]] | None = None
        metrics: dict[str, float] = {}

        def report() -> None:
            nonlocal metrics
            if pending and (pending[0] % config.train.log_every == 0 or pending[0] == steps):
                metrics = {name: float(value) for name, value in jax.device_get(pending[1]).items()}
                log.write(pending[0], metrics)
                bar.set_postfix(
                    loss=f"{metrics['loss']:.3f}", accuracy=f"{metrics['accuracy']:.3f}"
                )

        def save(step: int) -> None:
            with watch.timing("checkpoint"):
                metadata = {"plan": inputs.plan.inputs.identity, "step": step}
                checkpoints.save(step, state.parameters(), state.optimizer, metadata)

        with progress_bar(steps, workdir.name, "step", initial=start) as bar:
            for step in range(start, steps):
                for every, hook in hooks:
                    if step and step % every == 0:
                        with watch.timing("hook"):
                            hook(step, state)
                if step > start and step % config.checkpoint.every == 0:
                    save(step)
                with watch.timing("data"):
                    loaded: Loaded = next(loader)
                    for name, reason in zip(loaded.bad, loaded.reasons, strict=True):
                        bad.add(name, reason, step=step)
                    batch = placement.put(loaded.batch)
                with watch.timing("step"), jax.transfer_guard("disallow"):
                    state, device_metrics = compiled(state, batch)
                with watch.timing("step"):
                    report()
                pending = (step + 1, device_metrics)
                bar.update()
            with watch.timing("step"):
                report()
        save(steps)
        if len(bad):
            bad.save()
        log.close()
    return RunResult(
        steps, steps, dict(watch.seconds), metrics, tuple(row["id"] for row in bad.rows)
    )


def _restore(checkpoints: Checkpoints, plan: StatePlan, data: Plan, step: int) -> TrainState:
    abstract = plan.abstract
    parameters, optimizer, metadata = checkpoints.restore(
        step, {**abstract.trained, **abstract.frozen}, abstract.optimizer
    )
    if metadata["plan"] != data.inputs.identity:
        raise UserError(
            f"checkpoint {checkpoints.folder / str(step)} was trained on another data plan; restore "
            "the dataset, tokenizer and data settings, or start a new workdir with checkpoint.init."
        )
    return dataclasses.replace(
        plan.from_parameters(parameters),
        step=jax.device_put(jax.numpy.int32(step), plan.shardings.step),
        optimizer=optimizer,
    )
