"""`python -m tpu_scripts.experiments PLANS...`: the meshes of a shortlist, run for real."""

import argparse
import os
import sys
from collections.abc import Sequence

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import note
from svit_jax.cli.job import add_hosts
from svit_jax.planning.plan import Plan
from svit_jax.planning.sweep.grid import mesh_text
from tpu_scripts.experiments.comparison import Compared
from tpu_scripts.experiments.report import Report
from tpu_scripts.experiments.rows import Rows, StopError
from tpu_scripts.experiments.shortlist import Shortlist, check_keys, read_shortlist, row_name

# What says how many processes run this command, where no option does.
_COUNTS = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_HOST_OPTIONS = ("coordinator", "processes", "process", "heartbeat_seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not measured yet. Returns 0 when every row is measured or has failed, 1 on an
    error that the user can mend, 2 on wrong usage, and as `svit train` does 76, 130 and 143: then
    the same command goes on."""
    options = _options(arguments)
    try:
        shortlist = read_shortlist(options.plans, options.top)
        check_keys(shortlist.plans, options.keys)
        return _run(options, shortlist)
    except UserError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, shortlist: Shortlist) -> int:
    counted = next((int(os.environ[name]) for name in _COUNTS if name in os.environ), 1)
    rows = Rows(options.out, options.hosts or options.processes or counted)
    names = {
        row_name(plan, options.keys, options.steps, options.warm_up): plan
        for plan in shortlist.plans
    }
    code = 0
    try:
        for place, (name, plan) in enumerate(names.items(), start=1):
            note(f"row {place} of {len(names)}: {plan.topology}, {mesh_text(plan.mesh)}")
            rows.run(name, _command(options, rows, name, plan))
    except StopError as stopped:
        code = stopped.code
    compared = tuple(
        Compared(plan, rows.measured(name), rows.failure(name) or "")
        for name, plan in names.items()
    )
    report = Report(compared, options.steps, options.warm_up, shortlist.left_out)
    report.write(rows.folder)
    print(report.markdown())
    print(f"{rows.folder / 'report.html'}, report.md, report.json")
    return code


def _command(options: argparse.Namespace, rows: Rows, name: str, plan: Plan) -> list[str]:
    hosts = [
        f"--{option.replace('_', '-')}={value}"
        for option in _HOST_OPTIONS
        if (value := getattr(options, option)) is not None
    ]
    return [
        *(sys.executable, "-m", "tpu_scripts.experiments.measure", "--config", plan.config),
        *("--workdir", str(rows.workdir(name)), "--row", str(rows.row_file(name))),
        *("--warm-up", str(options.warm_up), *hosts),
        *(f"--{key}" for key in (*plan.overrides, *options.keys)),
        f"--train.steps={options.steps}",
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tpu_scripts.experiments",
        description="Run the meshes of a shortlist for real, and hold them against their plans.",
        epilog="Start the same command on every host; see docs/tpu.md.",
    )
    parser.add_argument(
        "plans", nargs="+", help="files of svit plan --sweep --json, --find-best --json, or --save"
    )
    parser.add_argument("--out", required=True, help="folder or bucket that all hosts share")
    parser.add_argument("--top", type=int, default=8, help="so many of the fastest plans (8)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each (20)")
    parser.add_argument("--warm-up", type=int, default=5, help="of these left out (5)")
    parser.add_argument(
        "--hosts", type=int, default=0, help="how many run this command: to be given on TPUs alone"
    )
    add_hosts(parser)
    parser.usage = "%(prog)s PLANS... --out DIR [--section.key=value ...] [options]"
    options, rest = parser.parse_known_args(arguments)
    wrong = [text for text in rest if not text.startswith("--") or "." not in text.split("=")[0]]
    if wrong or any("=" not in text for text in rest):
        parser.error(f"unrecognised arguments: {' '.join(wrong or rest)}")
    if options.steps - options.warm_up < 2 or options.warm_up < 1 or options.top < 1:
        parser.error("--steps must be --warm-up and two more, --warm-up and --top at least 1")
    options.keys = [text.removeprefix("--") for text in rest]
    return options


if __name__ == "__main__":
    sys.exit(main())
