"""`svit plan --sweep` and `--find-best`: from options to candidates, and from outcomes to files."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from svit_jax.training.preemption import PreemptedError

# Most memory first, least last.
_REMATS = ("none", "dots", "qkv", "attention", "full")
_ROWS = (1, 2, 4, 8, 16)
_ANY = "any"


def add_sweep_options(job: argparse.ArgumentParser) -> None:
    group = job.add_argument_group("many plans")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--sweep", action="store_true", help="plan all of a grid, and rank it")
    kind.add_argument(
        "--find-best", action="store_true", help="climb to a fast plan that fits, in fewer plans"
    )
    group.add_argument(
        "--meshes",
        nargs="+",
        default=[],
        metavar="AXIS=SIZES",
        help="sizes to try: tensor=1,2,4 sequence=any; fsdp takes what is left. Without it --sweep "
        "tries tensor=1,2,4,8, and --find-best all sizes of all axes",
    )
    group.add_argument(
        "--rows", nargs="+", type=int, default=_ROWS, help="rows a device at a time (1 2 4 8 16)"
    )
    group.add_argument(
        "--remat",
        nargs="+",
        choices=(*_REMATS, "offload"),
        default=_REMATS,
        help="of the decoder, most memory first",
    )
    group.add_argument(
        "--grow-batch",
        action="store_true",
        help="a step's rows follow the devices and --rows, in place of staying the config's",
    )
    group.add_argument("--top", type=int, default=20, help="so many rows of the table (20)")
    group.add_argument("--csv", metavar="FILE", help="all candidates as CSV")
    group.add_argument("--html", metavar="FILE", help="a page with tables and plots")
    group.add_argument("--no-cache", action="store_true", help="neither use nor keep plans")
    group.add_argument(
        "--jobs",
        type=int,
        default=max(1, (os.cpu_count() or 1) // 2),
        help="most compilers at a time, if memory allows (default: one for two cores)",
    )


def sweep(options: argparse.Namespace) -> None:
    from data_pipeline.common.files import write_text
    from svit_jax.planning.sweep.children import ChildPlanner, Room
    from svit_jax.planning.sweep.report import sweep_page
    from svit_jax.planning.sweep.runner import Runner
    from svit_jax.planning.sweep.search import find_best
    from svit_jax.planning.sweep.table import Sweep, csv_text, table_text

    spaces = _spaces(options)
    planner = ChildPlanner(_command)
    room = Room(max(1, options.jobs))
    runner = Runner(planner, _Trainer().refusal, _identity, _cache(options), room, planner.stop)
    with _sigterm_raises():
        if options.find_best:
            outcomes = [outcome for space in spaces for outcome in find_best(space, runner)]
        else:
            outcomes = runner.run(each for space in spaces for each in space.candidates())
    command = shlex.join(["svit", *options.arguments])
    found = Sweep.of(outcomes, command, runner.compiles, runner.known)
    if options.csv:
        write_text(Path(options.csv), csv_text(found))
    if options.html:
        write_text(Path(options.html), sweep_page(found))
    print(json.dumps(found.to_json()) if options.json else table_text(found, options.top))


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within it SIGTERM unwinds the sweep as Ctrl-C does, and so ends its children."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would leave some behind
        raise PreemptedError("stopped by SIGTERM; run the same command again to go on.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _spaces(options: argparse.Namespace) -> list[Any]:
    """A space for each config and topology. Raises UserError for what can't be."""
    from data_pipeline.common.errors import UserError
    from svit_jax.config import load_config
    from svit_jax.planning.sweep.grid import Space
    from svit_jax.planning.topology import parse_topology, require_libtpu

    if min(options.rows) < 1:
        raise UserError(f"--rows has {min(options.rows)}; a device takes at least one row.")
    given = _axes(options.meshes)
    if options.mesh:
        raise UserError("--mesh is one plan's; a sweep takes --meshes AXIS=SIZES ...")
    places = [parse_topology(name, options.slices) for name in dict.fromkeys(options.topology)]
    if any(place.on_tpu for place in places):
        require_libtpu()
    spaces = []
    for file in dict.fromkeys(options.config):
        config = load_config(file, options.overrides)
        for place in places:
            usual = {"replica": (place.slices,), "tensor": (1, 2, 4, 8), "sequence": (1,)}
            axes = (usual if options.sweep else {}) | given
            spaces.append(
                Space(
                    batch_sizes={file: config.data.batch_size},
                    accumulates={file: config.train.accumulate},
                    devices={place.name: place.count},
                    rows=sorted(set(options.rows)),
                    remats=tuple(dict.fromkeys(options.remat)),
                    overrides=tuple(options.overrides),
                    grow=options.grow_batch,
                    axes={axis: sizes for axis, sizes in axes.items() if sizes},
                )
            )
    return spaces


def _axes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The sizes of each axis that --meshes names; none for "any"."""
    from data_pipeline.common.errors import UserError
    from svit_jax.sharding.mesh import MESH_AXES

    found = {}
    for text in texts:
        axis, _, sizes = text.partition("=")
        known = sizes == _ANY or all(size.isdecimal() for size in sizes.split(","))
        if axis not in MESH_AXES or not known:
            raise UserError(
                f"--meshes has '{text}'; write AXIS=SIZE,SIZE,... or AXIS={_ANY}, of the axes "
                f"{', '.join(MESH_AXES)}."
            )
        found[axis] = () if sizes == _ANY else tuple(map(int, sizes.split(",")))
    return found


def _command(candidate: Any) -> list[str]:
    """The command that plans one candidate."""
    settings = [f"--{setting}" for setting in candidate.settings]
    where = ["--config", candidate.config, "--topology", candidate.topology, "--json"]
    return [sys.executable, "-m", "svit_jax.cli", "plan", *where, *settings]


def _cache(options: argparse.Namespace) -> Any:
    from importlib import metadata

    from svit_jax.planning.sweep.cache import FOLDER, PlanCache, source_hash
    from svit_jax.planning.topology import libtpu_version

    versions = {name: metadata.version(name) for name in ("jax", "jaxlib")}
    versions |= {"libtpu": libtpu_version() or "", "svit_jax": source_hash()}
    # The compilers' flags that come from outside of the config.
    versions |= {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return PlanCache("" if options.no_cache else FOLDER, versions)


def _identity(candidate: Any) -> Any:
    """All that decides a candidate's plan, but the versions."""
    from svit_jax.config import load_config

    return [load_config(candidate.config, candidate.settings).to_dict(), candidate.topology]


class _Trainer:
    """Why a run would refuse a candidate, found without compiling it. A state's plan takes a tenth
    of a second, and rows and remat policies don't change it: it is made once a mesh."""

    def __init__(self) -> None:
        self._meshes: dict[Any, str | None] = {}

    def refusal(self, candidate: Any) -> str | None:
        from svit_jax.config import load_config, run_config
        from svit_jax.planner import check_batch, check_state
        from svit_jax.planning.topology import parse_topology
        from svit_jax.sharding.explain import abstract_mesh

        place = parse_topology(candidate.topology)
        settings = load_config(candidate.config, candidate.settings)
        config = run_config(settings, with_data=False)
        mesh = abstract_mesh(config.mesh, place.count)
        key = candidate.config, candidate.topology, candidate.mesh
        if key not in self._meshes:
            self._meshes[key] = _refusal(lambda: check_state(config, mesh, place.slices))
        return self._meshes[key] or _refusal(lambda: check_batch(config, mesh))


def _refusal(check: Callable[[], None]) -> str | None:
    from data_pipeline.common.errors import UserError

    try:
        check()
    except UserError as error:
        return str(error)
    return None
