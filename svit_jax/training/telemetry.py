"""What a run logs: scalars by step as JSONL, in TensorBoard and, if asked, in Weights & Biases."""

import contextlib
import importlib.util
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import (
    PathLike,
    read_json,
    read_jsonl,
    strict_json,
    write_json,
    write_jsonl,
)

Scalars = Mapping[str, int | float]
METRICS, TIMINGS, _WANDB = "metrics.jsonl", "timings.jsonl", "wandb.json"
CONTINUED = (METRICS, TIMINGS, _WANDB)
"""The files that a run which goes on must find where it writes."""


class MetricsLog:
    """What training gives by step in `metrics.jsonl`, how fast in `timings.jsonl`, both in
    TensorBoard and in the `wandb` project, if one is named.

    Opened at a step, it drops what an interrupted run had logged from there on, evaluations of that
    very step among it since they are done again. So `metrics.jsonl` equals an uninterrupted run's.
    """

    def __init__(
        self,
        folder: str | Path,
        start_step: int,
        wandb: str = "",
        settings: Mapping[str, Any] | None = None,
    ):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = _opened(folder / METRICS, start_step)
        self._timings = _opened(folder / TIMINGS, start_step)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=start_step + 1, write_to_disk=True
        )
        self._wandb = _wandb_run(wandb, folder, settings) if wandb else None

    def write(self, step: int, scalars: Scalars) -> None:
        self._add(self._metrics, step, scalars, scalars)

    def write_timings(self, step: int, scalars: Scalars) -> None:
        boards = {f"timing/{name}": value for name, value in scalars.items()}
        self._add(self._timings, step, scalars, boards)

    def _add(self, file: Any, step: int, row: Scalars, boards: Scalars) -> None:
        file.write(_line({"step": step, **row}))
        file.flush()
        for name, value in boards.items():
            self._board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(boards), step=step)

    def close(self) -> None:
        self._metrics.close()
        self._timings.close()
        self._board.close()
        if self._wandb:
            self._wandb.finish()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(strict_json(dict(row)), allow_nan=False) + "\n"


def _opened(path: Path, start_step: int) -> Any:
    if path.exists():
        kept = []
        with contextlib.suppress(Exception):  # a line torn by a kill ends what is worth keeping
            for row in read_jsonl(path):
                evaluation = path.name == METRICS and "loss" not in row
                if row["step"] < start_step + (not evaluation):
                    kept.append(strict_json(row))
        write_jsonl(path, kept)
    return path.open("a", encoding="utf-8")


def require_wandb(project: str) -> None:
    """Raises UserError where a project is named and the package is not there."""
    if project and not importlib.util.find_spec("wandb"):
        raise UserError(
            f"train.wandb={project}, but the package wandb is not installed; install "
            "'svit-jax[wandb]', or leave train.wandb empty."
        )


def _wandb_run(project: str, folder: Path, settings: Mapping[str, Any] | None) -> Any:
    """The run's place in the project: the same one after a restart. WANDB_MODE=offline keeps it
    in the workdir, for `wandb sync`."""
    require_wandb(project)
    import wandb

    marker = folder / _WANDB
    if not marker.exists():
        write_json(marker, {"project": project, "id": uuid.uuid4().hex[:16]})
    return wandb.init(
        project=project,
        id=read_json(marker, "W&B marker")["id"],
        name=folder.name,
        dir=str(folder),
        resume="allow",
        config=dict(settings or {}),
    )


class Stopwatch:
    """Seconds by activity (data, step, checkpoint, ...), so that pauses are told from steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._start = time.perf_counter()

    @property
    def wall(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - start


def read_metrics(workdir: PathLike) -> list[dict[str, int | float]]:
    """The logged scalars of a run: a dict for each logged step, which stands in it as "step", and
    one for each evaluation."""
    path = epath.Path(workdir) / METRICS
    rows = read_jsonl(path) if path.exists() else ()
    return [
        {name: float(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]


def last_metrics(workdir: PathLike) -> dict[str, float]:
    """All that is logged of the last step."""
    rows = read_metrics(workdir)
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    merged = {name: float(value) for row in last for name, value in row.items()}
    merged.pop("step", None)
    return merged
