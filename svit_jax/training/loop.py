"""The training loop: one code path from one CPU to a pod, one order of operations.

evaluate -> checkpoint -> next batch -> step -> log the previous step. The order is load-bearing: a
checkpoint of step s is taken before batch s is drawn, so the step alone is the data cursor, and
metrics are read one step late, so the host never waits for the device.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import read_jsonl
from data_pipeline.common.progress import progress_bar
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.images.transforms import AspectMode
from data_pipeline.loading.pipeline import ImageSpec, Loaded, make_loader
from data_pipeline.loading.plan import Plan, PlanKind, build_plan, plan_inputs
from data_pipeline.records.source import RecordSource, open_records
from data_pipeline.text.templates import AfterEos, Template, get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.checkpoints.manager import (
    Checkpoints,
    check_parameters,
    load_parameters,
    newest_checkpoint,
    stored_parameters,
)
from svit_jax.models.lora import is_lora
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.faults import SkippedSteps, stop_for_skipped
from svit_jax.training.optimizer import OptimConfig, make_optimizer, trainable_paths
from svit_jax.training.preemption import PreemptedError, Preemption
from svit_jax.training.state import StatePlan, TrainState, plan_state
from svit_jax.training.step import compile_step
from svit_jax.training.telemetry import MetricsLog, Stopwatch, last_metrics
from svit_jax.training.watchdog import Watchdog
from svit_jax.training.workdir import claim_workdir, owns_workdir


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
    after_eos: AfterEos = "4.31"
    plan: PlanKind = "packed"
    image_mode: AspectMode = "pad"
    workers: int = 0
    max_bad: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`steps` updates, or, where it is 0, `epochs` over the plan's rows. `max_skipped` steps in a
    row without a finite loss and gradient stop the run, and so do `hang_seconds` in which no step,
    evaluation or save ends (0: never)."""

    steps: int = 0
    epochs: float = 1.0
    seed: int = 0
    log_every: int = 10
    loss_chunk: int = 256
    max_skipped: int = 10
    hang_seconds: float = 1800.0


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`init`: "scratch", or the workdir or checkpoint that parameters come from; those that match
    `fresh` (regular expressions over paths) are initialised anew all the same, and so are LoRA's
    where the checkpoint is of a model without it."""

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
    rules: Rules = dataclasses.field(default_factory=Rules)


Hook = Callable[[int, TrainState], None]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended: its last step, this process's seconds by activity, the last metrics."""

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
    def open(cls, config: RunConfig, workdir: Path, keep_plan: bool) -> "Inputs":
        """`keep_plan`: the plan in the workdir is this run's and must fit; else it is made anew."""
        data = config.data
        source = open_records(data.train, data.split)
        if source.header.resize:
            source.header.resize.require_fit(config.model.vision.image_size, data.image_mode)
        tokenizer = Tokenizer(data.tokenizer)
        if tokenizer.vocab_size > config.model.decoder.vocab:
            raise UserError(
                f"tokenizer {data.tokenizer} has {tokenizer.vocab_size} pieces, more than "
                f"model.decoder.vocab={config.model.decoder.vocab}; raise that key."
            )
        template = get_template(data.template, data.after_eos)
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
        if keep_plan and (folder / "plan.json").exists():
            plan = Plan.load(folder, inputs)
        else:
            quarantine = Quarantine(workdir / "unplanned.jsonl", data.max_bad)
            plan = build_plan(source, tokenizer, template, inputs, quarantine).save(folder)
            if len(quarantine):
                quarantine.save()
        return cls(source, tokenizer, template, plan)


def _without_new_lora(init: str, abstract: dict[str, Any]) -> dict[str, Any]:
    """What of a model is to be found in the checkpoint: all, or, in one without LoRA, the base."""
    if any(map(is_lora, stored_parameters(newest_checkpoint(init)))):
        return abstract
    return {path: shape for path, shape in abstract.items() if not is_lora(path)}


def check_init(config: RunConfig) -> None:
    """Raises UserError where `checkpoint.init` cannot start this model: before it is compiled."""
    init, fresh = config.checkpoint.init, config.checkpoint.fresh
    if init != "scratch":
        shapes = flat_parameters(abstract_model(config.model))
        check_parameters(newest_checkpoint(init), _without_new_lora(init, shapes))
        trainable_paths(fresh, shapes, "checkpoint.fresh")


def initial_state(config: RunConfig, plan: StatePlan) -> TrainState:
    """Step 0, as `checkpoint.init` says."""
    init, fresh = config.checkpoint.init, config.checkpoint.fresh
    if init == "scratch":
        return plan.from_scratch(config.model, config.train.seed)
    abstract = plan.abstract.parameters()
    found = _without_new_lora(init, abstract)
    parameters = load_parameters(newest_checkpoint(init), found)
    new = (abstract.keys() - found.keys()) | trainable_paths(fresh, abstract, "checkpoint.fresh")
    if new:
        parameters |= plan.initial_parameters(config.model, config.train.seed, new)
    return plan.from_parameters(parameters)


def total_steps(config: RunConfig, plan: Plan) -> int:
    return config.train.steps or math.ceil(config.train.epochs * len(plan) / config.data.batch_size)


def compile_run(config: RunConfig, steps: int, mesh: Mesh) -> tuple[StatePlan, BatchPlacement, Any]:
    """The state's plan, the batch's placement and the compiled step of a run."""
    paths = flat_parameters(abstract_model(config.model))
    trainable = trainable_paths(config.optim.trainable, paths)
    optimizer = make_optimizer(config.optim, steps, trainable)
    compute, rules = config.compute, config.rules
    plan = plan_state(config.model, trainable, optimizer, mesh, rules, compute.frozen_dtype)
    data = config.data
    shapes = batch_shapes(
        data.batch_size, data.row_length, data.pictures_per_row, config.model.vision.image_size
    )
    placement = BatchPlacement(mesh, rules, shapes)
    chunk, seed = config.train.loss_chunk, config.train.seed
    step = compile_step(plan, compute, chunk, mesh, rules, placement.abstract(), seed)
    return plan, placement, step


def train(
    config: RunConfig, workdir: str | Path, hooks: tuple[tuple[int, Hook], ...] = ()
) -> RunResult:
    """Trains, or goes on with, the run in `workdir`. `hooks` are (steps between, function).

    Raises PreemptedError on SIGTERM: at once before the first step, else with a checkpoint saved.
    """
    workdir = Path(workdir)
    watchdog = Watchdog(config.train.hang_seconds, workdir / "stacks.txt")
    with Preemption() as preemption, watchdog:
        return _train(config, workdir, hooks, preemption, watchdog)


def _train(
    config: RunConfig,
    workdir: Path,
    hooks: tuple[tuple[int, Hook], ...],
    preemption: Preemption,
    watchdog: Watchdog,
) -> RunResult:
    settings = dataclasses.asdict(config)
    owned = owns_workdir(workdir, settings)
    watch = Stopwatch()
    inputs = Inputs.open(config, workdir, keep_plan=owned)
    steps = total_steps(config, inputs.plan)
    data = config.data
    write_bundle(
        workdir, config.model, data.template, data.image_mode, data.tokenizer, data.after_eos
    )
    mesh = make_mesh(config.mesh)
    with Checkpoints(workdir / "checkpoints", config.checkpoint.keep) as checkpoints:
        start = checkpoints.latest_step() or 0
        if start >= steps:
            bad = _bad_records(workdir, start)
            return RunResult(start, steps, {}, last_metrics(workdir), _ids(bad))
        if not start:
            check_init(config)
        with watch.timing("compile"):
            plan, placement, compiled = compile_run(config, steps, mesh)
        skipped = SkippedSteps()
        if start:
            state, skipped, start = _restore(checkpoints, plan, inputs.plan)
        else:
            state = initial_state(config, plan)
        bad = _bad_records(workdir, start)
        # Only now: whatever a user had to mend before the first step may have been a setting.
        if not owned:
            claim_workdir(workdir, settings)
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
        pending: tuple[int, dict[str, jax.Array]] | None = None
        metrics: dict[str, float] = {}

        def report() -> None:
            nonlocal metrics, pending
            if not pending:
                return
            done, device_metrics = pending
            pending = None
            skipped.add(done, bool(jax.device_get(device_metrics["skipped"])))
            watchdog.beat()
            stop = len(skipped.in_row) >= config.train.max_skipped
            if done % config.train.log_every == 0 or done == steps or stop:
                found = jax.device_get(device_metrics)
                metrics = {name: float(value) for name, value in found.items()}
                metrics["skipped"] = float(skipped.total)
                log.write(done, metrics)
                bar.set_postfix(
                    loss=f"{metrics['loss']:.3f}", accuracy=f"{metrics['accuracy']:.3f}"
                )
            if stop:
                stop_for_skipped(skipped, workdir, inputs.plan, inputs.source, data.batch_size)

        def run_hooks(step: int) -> None:
            for every, hook in hooks:
                if step and step % every == 0 and not preemption.requested:
                    with watch.timing("hook"):
                        hook(step, state)
                    watchdog.beat()

        def save(step: int) -> None:
            # A run that dies after this goes on from here: what came before must be in the log.
            with watch.timing("step"):
                report()
            with watch.timing("checkpoint"):
                metadata = {
                    "plan": inputs.plan.inputs.identity,
                    "step": step,
                    "skipped": dataclasses.asdict(skipped),
                }
                checkpoints.save(step, state.parameters(), state.optimizer, metadata)
            watchdog.beat()

        with (
            contextlib.closing(MetricsLog(workdir, start)) as log,
            progress_bar(steps, workdir.name, "step", initial=start) as bar,
        ):
            preemption.defer()
            watchdog.beat()
            for step in range(start, steps):
                run_hooks(step)
                if preemption.requested:
                    if step > start:
                        save(step)
                    raise PreemptedError(
                        f"stopped by SIGTERM; step {step} of {steps} is saved in {workdir}: run "
                        "the same command again to go on."
                    )
                if step > start and step % config.checkpoint.every == 0:
                    save(step)
                with watch.timing("data"):
                    loaded: Loaded = next(loader)
                    for name, reason in zip(loaded.bad, loaded.reasons, strict=True):
                        bad.add(name, reason, step=step)
                    if loaded.bad:
                        bad.save()
                    batch = placement.put(loaded.batch)
                with watch.timing("step"), jax.transfer_guard("disallow"):
                    state, device_metrics = compiled(state, batch)
                with watch.timing("step"):
                    report()
                pending = (step + 1, device_metrics)
                bar.update()
            with watch.timing("step"):
                report()
            run_hooks(steps)
            save(steps)
    return RunResult(steps, steps, dict(watch.seconds), metrics, _ids(bad))


def _bad_records(workdir: Path, start: int) -> Quarantine:
    """The run's bad records, with those that it met before step `start`."""
    path = workdir / "bad_records.jsonl"
    bad = Quarantine(path)
    if path.exists():
        bad.rows += [row for row in read_jsonl(path, "bad records") if row["step"] < start]
        bad.save()
    return bad


def _ids(bad: Quarantine) -> tuple[str, ...]:
    return tuple(row["id"] for row in bad.rows)


def _restore(
    checkpoints: Checkpoints, plan: StatePlan, data: Plan
) -> tuple[TrainState, SkippedSteps, int]:
    """The state of the newest checkpoint that can be read, with its step."""
    abstract = plan.abstract
    parameters, optimizer, metadata = checkpoints.restore_newest(
        {**abstract.trained, **abstract.frozen}, abstract.optimizer
    )
    step = metadata["step"]
    if metadata["plan"] != data.inputs.identity:
        raise UserError(
            f"checkpoint {checkpoints.folder / str(step)} was trained on another data plan; "
            "restore the dataset, tokenizer and data settings, or start a new workdir with "
            "checkpoint.init."
        )
    state = dataclasses.replace(
        plan.from_parameters(parameters),
        step=jax.device_put(jax.numpy.int32(step), plan.shardings.step),
        optimizer=optimizer,
    )
    return state, SkippedSteps(**metadata.get("skipped", {})), step
