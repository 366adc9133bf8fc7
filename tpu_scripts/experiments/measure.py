"""One row of an experiment: N steps of the real training loop, nothing kept, and what they took.

A process of its own on every host, so that memory that a mesh takes ends with it.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_jsonl, write_json
from svit_jax import distributed
from svit_jax.cli.job import add_hosts, ending, launch
from svit_jax.config import load_config, run_config
from svit_jax.training.goodput import read_goodput
from svit_jax.training.loop import train
from svit_jax.training.telemetry import TIMINGS, read_metrics

FORCED = (
    "train.log_every=1",
    "train.eval_every=0",
    "train.wandb=",
    "data.heldout=",
    "checkpoint.init=scratch",  # values don't change how long a step takes
    "checkpoint.every=0",
)
"""The keys that make a run a measurement, whatever the config says."""

_MEMORY = "peak_memory_bytes"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the steps after the first `warm_up` took. `seconds` is their median and `spread` the
    distance between their quartiles; `tokens_per_second` (a device's share of the real tokens) and
    `mfu` are a mean step's work over that median. `mfu` is None on devices whose peak isn't known,
    `peak_memory` (bytes, of the device that needed most, the initial state's making included) on
    those that don't tell. `data_wait`: the share of the time in which steps waited for a batch."""

    steps: int
    seconds: float
    spread: float
    tokens_per_second: float
    mfu: float | None
    peak_memory: int | None
    data_wait: float
    compile_seconds: float
    device_kind: str
    devices: int
    processes: int
    versions: dict[str, str]


def summarised(timings: Sequence[Mapping[str, float]], devices: int) -> dict[str, Any]:
    """The figures of `Measured` that come from a run's `timings.jsonl`, a row a step."""
    seconds = [row["seconds_per_step"] for row in timings]
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive")

    def rate(name: str) -> float:
        return statistics.mean(row[name] * row["seconds_per_step"] for row in timings) / median

    return {
        "steps": len(timings),
        "seconds": median,
        "spread": quartiles[2] - quartiles[0],
        "tokens_per_second": rate("tokens_per_second") / devices,
        "mfu": rate("mfu") if "mfu" in timings[0] else None,
        "data_wait": sum(row["data_wait"] * row["seconds_per_step"] for row in timings)
        / sum(seconds),
    }


def run_steps(config: str, keys: Sequence[str], workdir: PathLike) -> None:
    """Trains in `workdir` by the config and its changed keys, on the devices of all processes."""
    train(run_config(load_config(config, (*keys, *FORCED))), workdir, hooks=((0, _peak_memory),))


def measured(workdir: PathLike, warm_up: int) -> Measured:
    """What the run in `workdir`, which has just ended on these devices, has logged of itself."""
    folder = epath.Path(workdir)
    timings = [
        {name: float(value) for name, value in row.items()}
        for row in read_jsonl(folder / TIMINGS)
        if row["step"] > warm_up
    ]
    memory = [int(row[_MEMORY]) for row in read_metrics(folder) if _MEMORY in row]
    device = jax.devices()[0]
    return Measured(
        **summarised(timings, jax.device_count()),
        peak_memory=memory[-1] if memory else None,
        compile_seconds=read_goodput(folder)["seconds"]["compile"],
        device_kind=device.device_kind,
        devices=jax.device_count(),
        processes=jax.process_count(),
        versions={name: metadata.version(name) for name in ("jax", "jaxlib")},
    )


def _peak_memory(step: int, state: Any) -> dict[str, float] | None:
    """A hook: the most bytes that any device of any process has had in use, where they tell."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    highest = max(stats.get("peak_bytes_in_use", 0) for stats in found)
    of_all = max(map(int, distributed.gather(str(highest))))
    return {_MEMORY: float(of_all)} if of_all else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes one row; ends as `svit train` does (svit_jax/cli/main.py)."""
    parser = argparse.ArgumentParser(description="One row of an experiment, on every host.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--row", required=True, help="the file that it is written to")
    parser.add_argument("--warm-up", type=int, required=True)
    add_hosts(parser)
    options, rest = parser.parse_known_args(arguments)
    keys = [text.removeprefix("--") for text in rest]
    try:
        with distributed.job(launch(options), ending):
            run_steps(options.config, keys, options.workdir)
            if distributed.is_first():
                found = measured(options.workdir, options.warm_up)
                write_json(options.row, dataclasses.asdict(found))
    except (UserError, KeyboardInterrupt, SystemExit) as error:
        code = ending(error)
        if code is None:
            raise
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
