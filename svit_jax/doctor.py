"""Whether hosts are fit to train together: each looks at itself, all compare, one verdict says why.

What is wrong on one host is a finding that travels to the others, never an error: whoever raised
one would leave them waiting.
"""

import contextlib
import dataclasses
import json
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import content_hash, in_bucket
from data_pipeline.common.storage_speed import timed_read, timed_write
from data_pipeline.images.transforms import AspectMode, prepare
from data_pipeline.loading.mixture import Mixture
from data_pipeline.loading.source import DialogueSource, JoinedSource
from data_pipeline.records.source import open_records
from svit_jax import distributed
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.config import load_config, run_config
from svit_jax.evaluation.markdown import markdown_table
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.settings import RunConfig

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "libtpu", "svit-jax")
CLOCK_SECONDS = 5.0
"""Clocks further apart make logs unreadable, and buckets refuse tokens that seem to be of later."""

_THREADS = 16
_ROUNDS = 3
_REDUCTIONS = 5
_MB, _GB = 1e6, 1e9


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is looked at. `data`: a dataset's folder, "" for the config's; `config` "": none is
    compared. `step_seconds`: how long a step takes, 0 where nobody knows. `devices` of all hosts
    together, 0: any number. `free`: the least GB of free disk. `megabytes` are written, read and
    summed at a time, and records are read for `seconds`."""

    workdir: str
    data: str = ""
    config: str = ""
    overrides: tuple[str, ...] = ()
    step_seconds: float = 0.0
    devices: int = 0
    free: float = 5.0
    megabytes: int = 64
    seconds: float = 5.0


@dataclasses.dataclass
class Host:
    """What one process found of its host; None: not looked at, or it failed. Speeds of storage and
    of pictures are MB/s, `free` is GB, `clock` seconds ahead of process 0, `reduced` GB/s.
    `records` are those read and made ready in a second, and `needed` those of the config's step."""

    name: str
    versions: dict[str, str]
    devices: int
    kind: str
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    clock: float = 0.0
    reduced: float | None = None
    workdir_write: float | None = None
    workdir_read: float | None = None
    free: float | None = None
    data_write: float | None = None
    data_read: float | None = None
    records: float | None = None
    pictures: float | None = None
    needed: float | None = None
    problems: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Within it an error is one of this host's problems."""
        try:
            yield
        except UserError as error:
            self.problems.append(f"{self.name}: {error}")
        except Exception as error:  # a bucket's or a disk's library has errors of its own
            self.problems.append(f"{self.name}: {what} failed: {type(error).__name__}: {error}.")


@dataclasses.dataclass(frozen=True)
class Report:
    """What all hosts found, and what is wrong."""

    hosts: tuple[Host, ...]
    problems: tuple[str, ...]

    @property
    def verdict(self) -> str:
        where = f"{len(self.hosts)} host processes, {sum(host.devices for host in self.hosts)} "
        where += f"devices ({', '.join(sorted({host.kind for host in self.hosts}))})"
        if not self.problems:
            return f"fit to train: {where}"
        return f"not fit to train: {where}; {len(self.problems)} wrong: " + " ".join(self.problems)

    def table(self) -> str:
        """A row a host, and below it what all of them share."""
        header = ["host", *_COLUMNS]
        rows = [[host.name, *(cell(host) for cell in _COLUMNS.values())] for host in self.hosts]
        first = self.hosts[0].versions
        versions = ", ".join(f"{name} {version}" for name, version in first.items())
        return f"{markdown_table(header, rows)}process 0 has {versions}"


def examine(wanted: Wanted) -> Report:
    """The report, the same in every process of the job; all of them must call this."""
    devices = jax.local_devices()
    versions = {package: _version(package) for package in PACKAGES}
    host = Host(distributed.name(), versions, len(devices), devices[0].device_kind)
    config = None
    if wanted.config:
        with host.noting("the config"):
            config = run_config(load_config(wanted.config, wanted.overrides), with_data=False)
            host.settings = dict(_flat(dataclasses.asdict(config)))
    host.clock = _clock()
    _reduce(host, wanted.megabytes)
    _look_at_workdir(host, wanted)
    folders: tuple[str, ...] = (wanted.data,) if wanted.data else ()
    with host.noting("the data"):
        if config and config.data.train and not folders:
            folders = Mixture.parse(config.data.train).folders
        for folder in folders:
            _look_at_data(host, epath.Path(folder), wanted.megabytes)
        _read_records(host, folders, config, wanted.seconds)
    if config and wanted.step_seconds:
        with host.noting("the mesh"):
            host.needed = _pictures_a_step(config) / wanted.step_seconds
    found = distributed.gather(json.dumps(dataclasses.asdict(host)))
    hosts = tuple(Host(**json.loads(text)) for text in found)
    return Report(hosts, tuple(judge(hosts, wanted)))


def judge(hosts: Sequence[Host], wanted: Wanted) -> list[str]:
    """A sentence for each thing that is wrong. What most hosts have is taken to be right, and of a
    draw, what the first has."""
    problems = [problem for host in hosts for problem in host.problems]
    for package in PACKAGES:
        for odd, usual in _odd(hosts, [host.versions[package] for host in hosts]):
            here, there = odd.versions[package], usual.versions[package]
            problems.append(f"{odd.name} has {package} {here}, and {usual.name} has {there}.")
    for odd, usual in _odd(hosts, [(host.devices, host.kind) for host in hosts]):
        problems.append(
            f"{odd.name} sees {odd.devices} devices ({odd.kind}), and {usual.name} sees "
            f"{usual.devices} ({usual.kind})."
        )
    total = sum(host.devices for host in hosts)
    if wanted.devices and total != wanted.devices:
        problems.append(f"there are {total} devices, and {wanted.devices} were expected.")
    # A host that could not read its config has said so.
    read = [host for host in hosts if host.settings]
    for odd, usual in _odd(read, [_hash(host) for host in read]):
        keys = sorted(
            key
            for key in odd.settings.keys() | usual.settings.keys()
            if odd.settings.get(key) != usual.settings.get(key)
        )
        problems.append(
            f"{odd.name} has another config than {usual.name}: it differs in "
            f"{', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}."
        )
    for host in hosts:
        if abs(host.clock) > CLOCK_SECONDS:
            way = "ahead of" if host.clock > 0 else "behind"
            problems.append(f"{host.name} has a clock {abs(host.clock):.0f} s {way} process 0's.")
        if host.free is not None and host.free < wanted.free:
            problems.append(
                f"{host.name} has {host.free:.1f} GB of free disk, less than {wanted.free:g}."
            )
        if host.records is not None and host.needed is not None and host.records < host.needed:
            problems.append(
                f"{host.name} reads {host.records:.0f} records/s, and the step wants up to "
                f"{host.needed:.0f}."
            )
    return problems


def _odd(hosts: Sequence[Host], values: Sequence[Any]) -> Iterator[tuple[Host, Host]]:
    """Each host whose value is not the most frequent one, beside the first that has that."""
    for most, _ in Counter(values).most_common(1):
        usual = hosts[values.index(most)]
        odd = (host for host, value in zip(hosts, values, strict=True) if value != most)
        yield from ((host, usual) for host in odd)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _hash(host: Host) -> str:
    return content_hash(host.settings) if host.settings else "-"


_COLUMNS: dict[str, Callable[[Host], str]] = {
    "devices": lambda host: f"{host.devices} {host.kind}",
    "config": _hash,
    "clock s": lambda host: f"{host.clock:+.2f}",
    "all-reduce GB/s": lambda host: _number(host.reduced),
    "workdir write MB/s": lambda host: _number(host.workdir_write),
    "read": lambda host: _number(host.workdir_read),
    "free GB": lambda host: _number(host.free),
    "data write MB/s": lambda host: _number(host.data_write),
    "read ": lambda host: _number(host.data_read),
    "records/s": lambda host: _number(host.records),
    "MB/s": lambda host: _number(host.pictures),
    "needed/s": lambda host: _number(host.needed),
}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)


def _clock() -> float:
    """Seconds that this host's clock is ahead of process 0's: of some rounds in which all read
    theirs as a barrier lets them go, the one that they left closest together."""
    if distributed.alone():
        return 0.0
    ahead = []
    for _ in range(_ROUNDS):
        distributed.barrier("reading the clock")
        # As text: JAX would gather a float64 as a float32.
        mine = time.time()
        ahead.append(mine - float(distributed.gather(repr(mine))[0]))
    return min(ahead, key=abs)


def _reduce(host: Host, megabytes: int) -> None:
    """An all-reduce over all devices: the bytes that cross a device's links in the best algorithm
    (2 (n - 1) / n of the array), by the fastest of some runs; wrong sums are a problem."""
    count = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("device",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, P("device"))
    length = max(1, int(megabytes * _MB) // 4)

    def part(index: Any) -> np.ndarray:
        return np.full((1, length), (index[0].start or 0) + 1, np.int32)

    values = jax.make_array_from_callback((count, length), spread, part)
    reduce = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "device"),
            mesh=mesh,
            in_specs=P("device"),
            out_specs=P("device"),
            check_vma=False,
        )
    )
    expected = count * (count + 1) // 2
    wrong = jax.jit(lambda x: (x != expected).sum(axis=1), out_shardings=spread)
    sums = jax.block_until_ready(reduce(values))
    for shard in wrong(sums).addressable_shards:
        if np.asarray(shard.data).any():
            host.problems.append(f"{host.name}: an all-reduce is wrong on {shard.device}.")
    seconds = []
    for _ in range(_REDUCTIONS):
        start = time.perf_counter()
        jax.block_until_ready(reduce(values))
        seconds.append(time.perf_counter() - start)
    if count > 1:
        host.reduced = 2 * (count - 1) / count * 4 * length / min(seconds) / _GB


def _look_at_workdir(host: Host, wanted: Wanted) -> None:
    """Writes and reads a file there, and looks for the one of process 0."""
    folder = epath.Path(wanted.workdir)
    (token, *_) = distributed.gather(uuid.uuid4().hex[:8])
    ours = folder / f".doctor.{token}.{distributed.place()}"
    content = np.random.default_rng().bytes(int(wanted.megabytes * _MB))
    with host.noting(f"writing and reading in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        host.workdir_write = timed_write(ours, content)
        found, host.workdir_read = timed_read(ours, len(content))
        if found != content:
            host.problems.append(f"{host.name}: {folder} gives back other bytes than were written.")
    with host.noting("asking for the free disk"):
        disk = Path.home() if in_bucket(wanted.workdir) else Path(wanted.workdir)
        host.free = shutil.disk_usage(disk).free / _GB
    distributed.barrier("the workdir is written")
    with host.noting(f"looking into {folder}"):
        if ours.exists() and not (folder / f".doctor.{token}.0").exists():
            host.problems.append(
                f"{host.name} doesn't see what process 0 wrote in {folder}; give a workdir that "
                "all hosts share."
            )
    distributed.barrier("the workdir is seen")
    with host.noting(f"deleting in {folder}"):
        ours.unlink(missing_ok=True)


def _look_at_data(host: Host, folder: epath.Path, megabytes: int) -> None:
    """Reads its largest file, and writes there where that is allowed; of several folders the
    slowest counts."""
    if not folder.is_dir():
        raise UserError(f"data folder {folder}: there is no such folder; check the path.")
    size = int(megabytes * _MB)
    files = [path for path in folder.iterdir() if not path.is_dir()]
    if not files:
        raise UserError(f"data folder {folder} holds no file; give a dataset's folder.")
    _, speed = timed_read(max(files, key=lambda path: path.stat().length), size)
    host.data_read = min(speed, host.data_read or speed)
    probe = folder / f".doctor.{uuid.uuid4().hex[:8]}"
    # Training reads there only: mounts are often read-only, each kind with an error of its own.
    with contextlib.suppress(Exception):
        try:
            speed = timed_write(probe, bytes(size))
            host.data_write = min(speed, host.data_write or speed)
        finally:
            probe.unlink(missing_ok=True)


def _read_records(
    host: Host, folders: Sequence[str], config: RunConfig | None, seconds: float
) -> None:
    """Random records, read and their pictures made ready as the loader does, in as many threads as
    its own without workers. Shards in a bucket can't be read at random places, and are left out."""
    if not folders or any(in_bucket(folder) for folder in folders):
        return
    split = config.data.split if config else "train"
    opened = tuple(open_records(folder, split) for folder in folders)
    source: DialogueSource = JoinedSource(opened) if len(opened) > 1 else opened[0]
    size = config.model.vision.image_size if config else 336
    mode: AspectMode = config.data.image_mode if config else "pad"
    start = time.perf_counter()

    def read(thread: int) -> tuple[int, int]:
        random = np.random.default_rng((distributed.place(), thread))
        count = read_bytes = 0
        while not count or time.perf_counter() < start + seconds:
            record = source[int(random.integers(len(source)))]
            for picture in record.images:
                prepare(picture, size, mode, record.image_id)
                read_bytes += len(picture)
            count += 1
        return count, read_bytes

    with ThreadPoolExecutor(_THREADS) as threads:
        counts = list(threads.map(read, range(_THREADS)))
    passed = time.perf_counter() - start
    host.records = sum(count for count, _ in counts) / passed
    host.pictures = sum(read_bytes for _, read_bytes in counts) / _MB / passed


def _pictures_a_step(config: RunConfig) -> int:
    """The most that this host must make for a step: full rows, of those that the mesh gives it."""
    data = config.data
    shapes = batch_shapes(
        data.batch_size,
        data.row_length,
        data.pictures_per_row,
        config.model.vision.image_size,
    )
    placement = BatchPlacement(make_mesh(config.mesh), config.rules, shapes)
    return len(placement.local_rows) * data.pictures_per_row
