"""What a run says of itself: JSONL and TensorBoard scalars, and where the time went."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from etils import epath
from tensorboardX import SummaryWriter

from data_pipeline.common.files import PathLike, read_jsonl, write_jsonl


class MetricsLog:
    """Scalars by step in `metrics.jsonl` and TensorBoard. Opened at a step, it drops what an
    interrupted run had logged from there on, so the log equals an uninterrupted one's."""

    def __init__(self, folder: str | Path, start_step: int):
        self.path = Path(folder) / "metrics.jsonl"
        if self.path.exists():
            kept = []
            with contextlib.suppress(Exception):  # a line torn by a kill ends what is worth keeping
                for row in read_jsonl(self.path):
                    if row["step"] <= start_step:
                        kept.append(row)
            write_jsonl(self.path, kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(Path(folder) / "tensorboard"), purge_step=start_step + 1, write_to_disk=True
        )

    def write(self, step: int, scalars: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


class Stopwatch:
    """Seconds by activity (data, step, checkpoint, ...), so that pauses are told from steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - start


def read_metrics(workdir: PathLike) -> list[dict[str, int | float]]:
    """The logged scalars of a run, a dict for each logged step, which stands in it as "step"."""
    path = epath.Path(workdir) / "metrics.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def last_metrics(workdir: PathLike) -> dict[str, float]:
    rows = read_metrics(workdir)
    last = rows[-1] if rows else {}
    return {name: float(value) for name, value in last.items() if name != "step"}
