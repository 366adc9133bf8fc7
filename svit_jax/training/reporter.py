"""What a run tells while it goes: a bar or a line, its logs, and its account of the time."""

import dataclasses
import datetime

from etils import epath
from jax.sharding import Mesh

from data_pipeline.common.mirror import Mirror
from data_pipeline.common.progress import note, progress_bar
from data_pipeline.loading.plan import Plan
from svit_jax import distributed
from svit_jax.training.flops import StepFlops, Work, peak_flops, rows_work, step_flops
from svit_jax.training.goodput import GOODPUT_FILE, Goodput
from svit_jax.training.settings import RunConfig
from svit_jax.training.telemetry import CONTINUED, MetricsLog, Scalars, Stopwatch

_PUSH_SECONDS = 60.0
_PAUSES = ("hook", "checkpoint", "compile")


class Speedometer:
    """Rates over the steps since the last reading, the pauses between them (evaluations,
    checkpoints) left out. `peak`: FLOP/s of all devices, None where they are not known."""

    def __init__(self, watch: Stopwatch, flops: StepFlops, peak: float | None):
        self._watch, self._flops, self._peak = watch, flops, peak
        self._start()

    def _start(self) -> None:
        self._work, self._steps = Work(), 0
        self._wall, self._seconds = self._watch.wall, dict(self._watch.seconds)

    def add(self, work: Work) -> None:
        """A step's work is done."""
        self._work += work
        self._steps += 1

    def read(self) -> dict[str, float]:
        """`seconds_per_step`, `tokens_per_second` (real ones, of all devices),
        `flops_per_second` (model FLOPs), `data_wait` (share of the time), and, where the peak is
        known, `mfu` and `hfu`. Starts anew."""

        def passed(activity: str) -> float:
            return self._watch.seconds.get(activity, 0.0) - self._seconds.get(activity, 0.0)

        seconds = self._watch.wall - self._wall - sum(map(passed, _PAUSES))
        model = self._work.times(self._flops.model) / seconds
        rates = {
            "seconds_per_step": seconds / self._steps,
            "tokens_per_second": self._work.tokens / seconds,
            "flops_per_second": model,
            "data_wait": passed("data") / seconds,
        }
        if self._peak:
            hardware = self._work.times(self._flops.hardware) / seconds
            rates |= {"mfu": model / self._peak, "hfu": hardware / self._peak}
        self._start()
        return rates


def summary_line(step: int, steps: int, loss: float, rates: Scalars, left: float) -> str:
    """Step, loss, speed, utilisation, share of waiting for data, and the seconds left, readable."""
    if "mfu" in rates:
        use = f"MFU {rates['mfu']:.1%} (HFU {rates['hfu']:.1%})"
    else:
        number, prefix = _scaled(rates["flops_per_second"])
        use = f"{number} {prefix}FLOP/s"
    number, prefix = _scaled(rates["tokens_per_second"])
    wait = f"data wait {rates['data_wait']:.1%}"
    time_left = datetime.timedelta(seconds=round(left))
    done = f"step {step}/{steps}, loss {loss:.4f}"
    return f"{done}, {number}{prefix} tokens/s, {use}, {wait}, left {time_left}"


def _scaled(value: float) -> tuple[str, str]:
    """Three digits, and the SI prefix that they need: 12345 gives ("12.3", "k")."""
    power = next((n for n in range(5) if value < 1000 ** (n + 1)), 5)
    return f"{value / 1000**power:.3g}", "kMGTP"[power - 1] if power else ""


class _Logs:
    """What is written of a run, in a workdir that may be a bucket."""

    def __init__(self, config: RunConfig, workdir: epath.Path, watch: Stopwatch, start: int):
        self.mirror = Mirror(workdir, *CONTINUED, GOODPUT_FILE)
        settings = dataclasses.asdict(config)
        self.metrics = MetricsLog(self.mirror.local, start, config.train.wandb, settings)
        self.goodput = Goodput(self.mirror.local / GOODPUT_FILE, watch)
        self.goodput.resume(start)

    def close(self) -> None:
        self.metrics.close()
        self.goodput.write()
        self.mirror.close()


class Reporter:
    """All that a run writes about itself while it trains from step `start` to `steps`. Of several
    processes the first alone writes and shows it. `latest`: the scalars last logged, by name."""

    def __init__(
        self,
        config: RunConfig,
        workdir: epath.Path,
        trainable: frozenset[str],
        plan: Plan,
        mesh: Mesh,
        watch: Stopwatch,
        start: int,
        steps: int,
    ):
        self.latest: dict[str, float] = {}
        first = distributed.is_first()
        self._logs = _Logs(config, workdir, watch, start) if first else None
        self._watch, self._begun = watch, watch.wall
        self._plan, self._batch_size = plan, config.data.batch_size
        self._start, self._steps = start, steps
        flops = step_flops(config.model, trainable, config.compute)
        peak = peak_flops(mesh.devices.flat[0].device_kind)
        self._speed = Speedometer(watch, flops, peak and peak * mesh.size)
        self._bar = progress_bar(
            steps, workdir.name, "step", start, only_on_a_terminal=True, shown=first
        )

    def stepped(self, step: int, targets: float) -> None:
        """A step is done, with so many target tokens."""
        rows = range((step - 1) * self._batch_size, step * self._batch_size)
        self._speed.add(rows_work(self._plan, rows) + Work(targets=targets))
        self._bar.update()

    def log(self, step: int, metrics: Scalars) -> None:
        """Logs a step's metrics with the speed since the last time, and shows both."""
        self.latest |= metrics
        rates = self._speed.read()
        if self._logs is None:
            return
        self._logs.metrics.write(step, metrics)
        self._logs.metrics.write_timings(step, rates)
        self._logs.goodput.write_now_and_then()
        self._logs.mirror.push(at_most_every=_PUSH_SECONDS)
        left = (self._watch.wall - self._begun) / (step - self._start) * (self._steps - step)
        line = summary_line(step, self._steps, metrics["loss"], rates, left)
        if self._bar.disable:
            note(line)
        else:
            self._bar.set_postfix_str(line.partition(", ")[2])

    def evaluated(self, step: int, scalars: Scalars) -> None:
        """Logs what an evaluation after `step` found."""
        self.latest |= scalars
        if self._logs is None:
            return
        self._logs.metrics.write(step, scalars)
        note(f"step {step}: " + ", ".join(f"{name} {v:.4g}" for name, v in scalars.items()))

    def saving(self) -> None:
        """A checkpoint is about to be saved: what is logged must be where it will be."""
        if self._logs is not None:
            self._logs.mirror.push()

    def saved(self, step: int) -> None:
        if self._logs is not None:
            self._logs.goodput.mark(step)

    def close(self) -> None:
        self._bar.close()
        if self._logs is not None:
            self._logs.close()
