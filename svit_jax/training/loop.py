"""The training loop: one code path from one CPU to a pod, one order of operations.

evaluate -> checkpoint -> next batch -> step -> log the previous step. The order is load-bearing: a
checkpoint of step s is taken before batch s is drawn, so the step alone is the data cursor, and
metrics are read one step late, so the host never waits for the device.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import jax
from etils import epath

from data_pipeline.common.files import PathLike, read_jsonl
from data_pipeline.common.mirror import Mirror
from data_pipeline.common.progress import progress_bar
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.common.storage import explained
from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.checkpoints.manager import Checkpoints
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.faults import SkippedSteps, stop_for_skipped
from svit_jax.training.inputs import Inputs
from svit_jax.training.preemption import PreemptedError, Preemption
from svit_jax.training.program import compile_run, total_steps
from svit_jax.training.settings import RunConfig
from svit_jax.training.start import check_init, initial_state, restore_newest
from svit_jax.training.state import TrainState
from svit_jax.training.telemetry import MetricsLog, Stopwatch, last_metrics
from svit_jax.training.watchdog import Watchdog
from svit_jax.training.workdir import claim_workdir, owns_workdir

_PUSH_SECONDS = 60.0

Hook = Callable[[int, TrainState], None]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended: its last step, this process's seconds by activity, the last metrics."""

    step: int
    steps: int
    seconds: dict[str, float]
    metrics: dict[str, float]
    bad_records: tuple[str, ...]


def train(
    config: RunConfig, workdir: PathLike, hooks: tuple[tuple[int, Hook], ...] = ()
) -> RunResult:
    """Trains, or goes on with, the run in `workdir`. `hooks` are (steps between, function); SIGTERM
    breaks one off, and it is called again when the run goes on.

    Raises PreemptedError on SIGTERM: at once before the first step, else with a checkpoint saved.
    """
    folder = epath.Path(workdir)
    watchdog = Watchdog(config.train.hang_seconds, folder / "stacks.txt")
    with Preemption() as preemption, watchdog, explained("workdir", folder):
        return _train(config, folder, hooks, preemption, watchdog)


def _train(
    config: RunConfig,
    workdir: epath.Path,
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
    with Checkpoints(workdir / "checkpoints", config.checkpoint.retention) as checkpoints:
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
            state, skipped, start = restore_newest(checkpoints, plan, inputs.plan)
        else:
            state = initial_state(config, plan)
        bad = _bad_records(workdir, start)
        # Only now: whatever a user had to mend before the first step may have been a setting.
        if not owned:
            claim_workdir(workdir, settings)
        loader = inputs.loader(config, placement.local_rows, start, steps)
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
                logs.push(at_most_every=_PUSH_SECONDS)
                bar.set_postfix(
                    loss=f"{metrics['loss']:.3f}", accuracy=f"{metrics['accuracy']:.3f}"
                )
            if stop:
                stop_for_skipped(skipped, workdir, inputs.plan, inputs.source, data.batch_size)

        def run_hooks(step: int) -> None:
            for every, hook in hooks:
                if step and step % every == 0 and not preemption.requested:
                    with watch.timing("hook"):
                        work = functools.partial(hook, step, state)
                        # Processes of one job must break off together, or not at all.
                        preemption.interruptible(work) if jax.process_count() == 1 else work()
                    watchdog.beat()

        def save(step: int) -> None:
            # A run that dies after this goes on from here: what came before must be in the log.
            with watch.timing("step"):
                report()
            with watch.timing("checkpoint"):
                logs.push()
                metadata = {
                    "plan": inputs.plan.inputs.identity,
                    "step": step,
                    "skipped": dataclasses.asdict(skipped),
                }
                checkpoints.save(step, state.parameters(), state.optimizer, metadata, metrics)
            watchdog.beat()

        with (
            contextlib.closing(Mirror(workdir, "metrics.jsonl")) as logs,
            contextlib.closing(MetricsLog(logs.local, start)) as log,
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
                    loaded = next(loader)
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


def _bad_records(workdir: epath.Path, start: int) -> Quarantine:
    """The run's bad records, with those that it met before step `start`."""
    path = workdir / "bad_records.jsonl"
    bad = Quarantine(path)
    if path.exists():
        bad.rows += [row for row in read_jsonl(path, "bad records") if row["step"] < start]
        bad.save()
    return bad


def _ids(bad: Quarantine) -> tuple[str, ...]:
    return tuple(row["id"] for row in bad.rows)
