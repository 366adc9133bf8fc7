"""`python3 -m tpu_scripts [--file run.toml] [--dry-run] COMMAND`: one run on Cloud TPU."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_pipeline.common.errors import UserError
from tpu_scripts.babysitter import Babysitter
from tpu_scripts.cloud import Cloud, CloudError
from tpu_scripts.gke import jobset, xpk
from tpu_scripts.ledger import Ledger
from tpu_scripts.settings import Settings, read_settings
from tpu_scripts.slices import Slice, judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 on success, 1 on an error or a run that was given up, 2 on wrong
    usage, 130 when interrupted. What still costs money is said at the end of each that
    asks the cloud."""
    options = _parser().parse_args(arguments)
    try:
        settings = read_settings(options.file)
        if options.command in _PRINTED:
            print(_PRINTED[options.command](settings))
            return 0
        fresh = options.command in ("create", "babysit")
        cloud = Cloud(settings, options.dry_run, "absent" if fresh else "ready")
        ledger = Ledger(options.file.with_suffix(f".{settings.name}.ledger.jsonl"))
        found = Slice(settings, cloud, ledger)
    except UserError as error:
        return _failed(error)
    try:
        return COMMANDS[options.command](found, options)
    except UserError as error:
        return _failed(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        _say_bill(found)


def _failed(error: UserError) -> int:
    print(f"tpu_scripts: {error}", file=sys.stderr)
    return 1


def _say_bill(found: Slice) -> None:
    try:
        print("\n".join(found.bill()))
    except CloudError as error:
        print(f"WHAT STILL RUNS COULD NOT BE SEEN: {error}", file=sys.stderr)


def _create(found: Slice, options: argparse.Namespace) -> int:
    """ask for the slice, and wait until it is ready"""
    s = found.settings
    print(
        f"{s.name}: {s.slices} x {s.accelerator_type}, {s.capacity}, in {s.zone}; "
        f"${s.per_hour:.2f} an hour, so ${s.budget:.2f} last {s.budget / s.per_hour:.1f} hours"
    )
    found.create()
    found.wait(options.every)
    return 0


def _install(found: Slice, options: argparse.Namespace) -> int:
    """copy this checkout to every host, make its environment, mount the buckets"""
    found.install()
    return 0


def _doctor(found: Slice, options: argparse.Namespace) -> int:
    """look at every host before training: versions, chips, network, storage, config"""
    found.install()
    said, well = found.doctor()
    if said:
        print(said)
    return 0 if well else 1


def _start(found: Slice, options: argparse.Namespace) -> int:
    """start training on all hosts, or go on with it"""
    found.install()
    found.start()
    return 0


def _status(found: Slice, options: argparse.Namespace) -> int:
    """the slice, the job on every host, and the last that it wrote"""
    state = found.look()
    assumed = " (assumed)" if found.cloud.dry_run else ""
    print(f"slice {found.settings.name}: {state}{assumed}")
    if state == "ready":
        jobs = found.jobs()
        for job in jobs:
            print(f"  {job.host}: {job.state}{'' if job.code is None else f' with {job.code}'}")
        lines = found.last_lines() if assumed or judge(jobs) != "none" else ""
        if lines:
            print(lines)
    return 0


def _watch(found: Slice, options: argparse.Namespace) -> int:
    """status, again and again, until the job has ended"""
    while True:
        _status(found, options)
        if found.cloud.dry_run:
            return 0
        _say_bill(found)
        if found.look() != "ready" or judge(found.jobs()) != "running":
            return 0
        time.sleep(options.every)


def _attach(found: Slice, options: argparse.Namespace) -> int:
    """follow the first host's log; Ctrl-C leaves, and training goes on"""
    return found.attach()


def _logs(found: Slice, options: argparse.Namespace) -> int:
    """gather every host's log in the folder LOGS beside the settings"""
    paths = found.logs(options.file.with_suffix(".logs"))
    if not found.cloud.dry_run:
        print("\n".join(map(str, paths)))
    return 0


def _stop(found: Slice, options: argparse.Namespace) -> int:
    """end training with a checkpoint; the slice stays, and costs"""
    found.stop()
    return 0


def _delete(found: Slice, options: argparse.Namespace) -> int:
    """delete the slice; the bucket stays"""
    found.delete()
    return 0


def _babysit(found: Slice, options: argparse.Namespace) -> int:
    """create, install, start, and keep it going until it is done or a limit is reached"""
    if found.cloud.dry_run:
        found.create()
        found.install()
        found.start()
        return 0
    sitter = Babysitter(found, options.file.with_suffix(".babysitter.jsonl"), options.every)
    try:
        return 0 if sitter.run(options.keep) else 1
    finally:
        print(sitter.summary())


COMMANDS: dict[str, Callable[[Slice, argparse.Namespace], int]] = {
    "create": _create,
    "install": _install,
    "doctor": _doctor,
    "start": _start,
    "status": _status,
    "watch": _watch,
    "attach": _attach,
    "logs": _logs,
    "stop": _stop,
    "delete": _delete,
    "babysit": _babysit,
}


def _jobset(settings: Settings) -> str:
    """print a JobSet for GKE: ... jobset | kubectl apply -f -"""
    return json.dumps(jobset(settings), indent=1)


def _xpk(settings: Settings) -> str:
    """print the xpk command that runs it on GKE"""
    return xpk(settings)


_PRINTED: dict[str, Callable[[Settings], str]] = {"jobset": _jobset, "xpk": _xpk}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tpu_scripts", description="One run on Cloud TPU; see docs/tpu.md."
    )
    parser.add_argument("--file", type=Path, default=Path("run.toml"), help="the run's settings")
    parser.add_argument(
        "--dry-run", action="store_true", help="print every gcloud command, and run none"
    )
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, function in {**COMMANDS, **_PRINTED}.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        if name == "babysit":
            command.add_argument(
                "--keep", action="store_true", help="don't delete the slice at the end"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
