"""`svit doctor`: a look at every host before an expensive run begins."""

import argparse
import dataclasses
from typing import Any

from svit_jax.cli.job import add_hosts, add_job, ending, launch, show


def doctor_job(jobs: Any) -> None:
    job = add_job(
        jobs,
        "doctor",
        _run,
        "look at every host before training: versions, devices, network, storage, clock, config",
        "svit doctor --workdir run --config configs/svit_v1_5_7b_lora.py:v5e --data.train=dataset",
    )
    job.add_argument("--workdir", required=True, help="the run's, which all hosts must share")
    job.add_argument("--config", default="", help="the run's, to compare between hosts")
    job.add_argument("--data", default="", metavar="DIR", help="in place of the config's dataset")
    job.add_argument(
        "--step-seconds",
        type=float,
        default=0.0,
        help="how long a step of the config takes: records must be read as fast",
    )
    job.add_argument("--devices", type=int, default=0, help="how many there must be in all")
    job.add_argument(
        "--free-gb", type=float, default=5.0, help="less free disk on a host is wrong (5)"
    )
    job.add_argument(
        "--megabytes", type=int, default=64, help="written, read and summed at a time (64)"
    )
    job.add_argument("--seconds", type=float, default=5.0, help="for so long records are read (5)")
    add_hosts(job)
    job.usage = "svit doctor --workdir DIR [--config FILE] [--section.key=value ...] [options]"


def _run(options: argparse.Namespace) -> None:
    from data_pipeline.common.errors import UserError
    from svit_jax import distributed
    from svit_jax.doctor import Wanted, examine

    with distributed.job(launch(options), ending):
        report = examine(
            Wanted(
                options.workdir,
                options.data,
                options.config,
                tuple(options.overrides),
                options.step_seconds,
                options.devices,
                options.free_gb,
                options.megabytes,
                options.seconds,
            )
        )
        if distributed.is_first():
            shown = {**dataclasses.asdict(report), "fit": not report.problems}
            fit = "" if report.problems else f"\n{report.verdict}"
            show(options, shown, f"{report.table()}{fit}")
    # Not within the job: no process may end before all of them have the report.
    if report.problems:
        raise UserError(report.verdict)
