"""The training loop: one code path from one CPU to a pod, one order of operations.

evaluate -> checkpoint -> next batch -> step -> log the previous step. The order is load-bearing: a
checkpoint of step s is taken before batch s is drawn, so the step alone is the data cursor, and
metrics are read one step late, so the host never waits for the device.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from data_pipeline.common.files import PathLike, read_jsonl
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.common.storage import explained
from svit_jax import distributed
from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.checkpoints.manager import Checkpoints
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.compilation import compilation_cache
from svit_jax.training.faults import SkippedSteps, stop_for_skipped
from svit_jax.training.first_batch import write_first_batch
from svit_jax.training.goodput import read_goodput
from svit_jax.training.heldout import heldout_hook, open_heldout
from svit_jax.training.inputs import Ahead, Inputs
from svit_jax.training.news import News
from svit_jax.training.preemption import PreemptedError, Preemption
from svit_jax.training.profiling import ProfileWindow
from svit_jax.training.program import compile_run, total_steps
from svit_jax.training.reporter import Reporter
from svit_jax.training.settings import RunConfig
from svit_jax.training.start import check_init, initial_state, restore_newest
from svit_jax.training.state import TrainState
from svit_jax.training.telemetry import Stopwatch, last_metrics, require_wandb
from svit_jax.training.watchdog import Watchdog
from svit_jax.training.workdir import claim_workdir, owns_workdir

Hook = Callable[[int, TrainState], Mapping[str, float] | None]
"""Takes a step and the state after it; what it returns is logged."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended: its last step with what is logged of it, and where the time went over all
    its starts (`goodput.read_goodput`)."""

    step: int
    steps: int
    metrics: dict[str, float]
    goodput: dict[str, Any]
    bad_records: tuple[str, ...]


def train(
    config: RunConfig,
    workdir: PathLike,
    hooks: tuple[tuple[int, Hook], ...] = (),
    profile_steps: tuple[int, int] | None = None,
) -> RunResult:
    """Trains, or goes on with, the run in `workdir`. `hooks` are (steps between, function):
    they run every so many steps (0: never), and at the end. `profile_steps`: the first and last
    step to trace with the profiler. SIGTERM breaks a hook off, and it is called again when the run
    goes on.

    Raises PreemptedError on SIGTERM: at once before the first step, else with a checkpoint saved.
    """
    folder = epath.Path(workdir)
    stacks = "stacks.txt" if distributed.is_first() else f"stacks.{jax.process_index()}.txt"
    watchdog = Watchdog(config.train.hang_seconds, folder / stacks)
    profile = ProfileWindow(profile_steps, folder / "profile")
    with Preemption() as preemption, watchdog, explained("workdir", folder):
        return _train(config, folder, hooks, profile, preemption, watchdog)


def _train(
    config: RunConfig,
    workdir: epath.Path,
    hooks: tuple[tuple[int, Hook], ...],
    profile: ProfileWindow,
    preemption: Preemption,
    watchdog: Watchdog,
) -> RunResult:
    require_wandb(config.train.wandb)
    settings = dataclasses.asdict(config)
    owned = owns_workdir(workdir, settings)
    watch = Stopwatch()
    inputs = Inputs.open(config, workdir, keep_plan=owned)
    steps = total_steps(config, inputs.plan)
    data, save_every = config.data, config.checkpoint.every
    first = distributed.is_first()
    if first:
        write_bundle(
            workdir, config.model, data.template, data.image_mode, data.tokenizer, data.after_eos
        )
    mesh = make_mesh(config.mesh)
    with Checkpoints(workdir / "checkpoints", config.checkpoint.retention) as checkpoints:
        start = checkpoints.latest_step() or 0
        if start >= steps:
            bad = _bad_records(workdir, start)
            return _result(start, steps, workdir, bad)
        profile.require_within(start, steps)
        if not start:
            check_init(config)
        heldout = open_heldout(config, workdir) if data.heldout else None
        with watch.timing("compile"), compilation_cache(config.train.compilation_cache):
            plan, placement, compiled = compile_run(config, steps, mesh, inputs.plan.lengths)
            if heldout:
                on_heldout = heldout_hook(config, workdir, heldout, plan, placement, mesh)
                hooks = ((config.train.eval_every, on_heldout), *hooks)
        skipped = SkippedSteps()
        if start:
            with watch.timing("checkpoint"):
                state, skipped, start = restore_newest(checkpoints, plan, inputs.plan)
        else:
            with watch.timing("compile"):
                state = initial_state(config, plan)
        bad = _bad_records(workdir, start)
        # Only now: whatever a user had to mend before the first step may have been a setting.
        if not owned and first:
            claim_workdir(workdir, settings)
        news = News(bad, data.max_bad, preemption)
        loader = inputs.loader(config, placement.local_rows, start, steps)
        pending: tuple[int, dict[str, jax.Array]] | None = None

        def report() -> None:
            nonlocal pending
            if not pending:
                return
            done, device_metrics = pending
            pending = None
            news.hear()
            found = jax.device_get(device_metrics)
            metrics = {name: float(value) for name, value in found.items()}
            skipped.add(done, bool(metrics["skipped"]))
            watchdog.beat()
            reporter.stepped(done, metrics["target_tokens"])
            stop = len(skipped.in_row) >= config.train.max_skipped
            if done % config.train.log_every == 0 or done == steps or stop:
                reporter.log(done, {**metrics, "skipped": float(skipped.total)})
            if stop:
                stop_for_skipped(skipped, workdir, inputs.plan, inputs.source, data.batch_size)

        def evaluate(step: int) -> bool:
            """Runs the hooks that are due; False where SIGTERM came: they come again."""
            due = [hook for every, hook in hooks if step == steps or (every and step % every == 0)]
            # Several hosts must leave an evaluation together, or some would wait for the others.
            leaving = preemption.at_once if distributed.alone() else contextlib.nullcontext
            for hook in due if step else ():
                with watch.timing("step"):
                    report()
                found = None
                if not news.stop:
                    with watch.timing("hook"), contextlib.suppress(PreemptedError), leaving():
                        found = hook(step, state)
                if news.stop:
                    return False
                if found:
                    reporter.evaluated(step, found)
                watchdog.beat()
            return True

        def save(step: int) -> None:
            # A run that dies after this goes on from here: what came before must be in the log.
            with watch.timing("step"):
                report()
            if not save_every:
                return
            with watch.timing("checkpoint"):
                reporter.saving()
                plan_identity = inputs.plan.inputs.identity
                kept = {"plan": plan_identity, "step": step, "skipped": dataclasses.asdict(skipped)}
                parameters, latest = state.parameters(), reporter.latest
                checkpoints.save(step, parameters, state.optimizer, kept, latest)
            reporter.saved(step)
            watchdog.beat()

        reporter = Reporter(config, workdir, plan.trainable, inputs.plan, mesh, watch, start, steps)
        with (
            contextlib.closing(reporter),
            contextlib.closing(profile),
            contextlib.closing(Ahead(loader, placement.put)) as batches,
        ):
            preemption.defer()
            watchdog.beat()
            for step in range(start, steps):
                evaluate(step)
                if news.stop:
                    if step > start:
                        save(step)
                    raise PreemptedError(
                        f"stopped by SIGTERM; step {step} of {steps} is saved in {workdir}: run "
                        "the same command again to go on."
                        if save_every
                        else "stopped by SIGTERM; checkpoint.every=0 saves nothing."
                    )
                if step > start and save_every and step % save_every == 0:
                    save(step)
                if not batches.ready:
                    # Data is waited for only once the devices have nothing left to do.
                    with watch.timing("step"):
                        report()
                with watch.timing("data"):
                    loaded, batch = next(batches)
                    news.tell(loaded)
                if step == 0 and first:
                    write_first_batch(
                        workdir / "first_batch.html",
                        loaded.batch,
                        placement.local_rows,
                        inputs.tokenizer,
                        config.model.vision.patches,
                    )
                profile.before(step + 1)
                with (
                    watch.timing("step"),
                    jax.transfer_guard("disallow"),
                    profile.annotation(step + 1),
                ):
                    state, device_metrics = compiled(state, batch)
                with watch.timing("step"):
                    report()
                pending = (step + 1, device_metrics)
                profile.after(step + 1, state)
            with watch.timing("step"):
                report()
            evaluated = evaluate(steps)
            save(steps)
            with watch.timing("checkpoint"):
                checkpoints.wait()
            if not evaluated:
                raise PreemptedError(
                    f"stopped by SIGTERM; all {steps} steps are saved in {workdir}, but the "
                    "evaluation after them was left: svit eval does it."
                )
    return _result(steps, steps, workdir, bad)


def _result(step: int, steps: int, workdir: epath.Path, bad: Quarantine) -> RunResult:
    return RunResult(step, steps, last_metrics(workdir), read_goodput(workdir), _ids(bad))


def _bad_records(workdir: epath.Path, start: int) -> Quarantine:
    """The run's bad records, with those that it met before step `start`."""
    path = workdir / "bad_records.jsonl"
    bad = Quarantine(path)
    if path.exists():
        bad.rows += [row for row in read_jsonl(path, "bad records") if row["step"] < start]
    distributed.by_first("bad records", lambda: bad.save() if path.exists() else None)
    return bad


def _ids(bad: Quarantine) -> tuple[str, ...]:
    return tuple(row["id"] for row in bad.rows)
