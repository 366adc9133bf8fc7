"""Where a run's time went, over all its starts: goodput, and what was lost to interruptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from data_pipeline.common.files import PathLike, read_json, write_json
from svit_jax.training.telemetry import Stopwatch

GOODPUT_FILE = "goodput.json"
ACTIVITIES = {
    "step": "step",
    "data": "data",
    "compile": "compile",
    "checkpoint": "checkpoint",
    "hook": "evaluation",
}
"""The Stopwatch's activities, as the account calls them."""

_REPEATED = ("step", "data", "checkpoint", "evaluation")
_WRITE_EVERY_SECONDS = 10.0
_MARKS = 20


class Goodput:
    """A run's account in `goodput.json`: seconds by activity, `lost` (work that an interruption
    made the run do again) and `other`, which sum to the seconds that its processes ran.

    The file is written every ten seconds, and at each checkpoint: what a kill takes from the
    account is what passed since then.
    """

    def __init__(self, path: Path, watch: Stopwatch):
        self.path = path
        found = read_json(path, "goodput account") if path.exists() else {}
        self._watch = watch
        self._before: dict[str, float] = found.get("seconds", {})
        self._starts: int = found.get("starts", 0) + 1
        self._marks: list[tuple[int, dict[str, float]]] = [
            (step, seconds) for step, seconds in found.get("marks", [])
        ]
        self._written = 0.0

    def resume(self, start: int) -> None:
        """The run goes on from step `start`: what was done after that step's checkpoint was for
        nothing."""
        self._marks = [(step, seconds) for step, seconds in self._marks if step <= start]
        kept = self._marks[-1][1] if start and self._marks else {}
        lost = 0.0
        for name in _REPEATED:
            done = self._before.get(name, 0.0)
            self._before[name] = min(done, kept.get(name, 0.0))
            lost += done - self._before[name]
        self._before["lost"] = self._before.get("lost", 0.0) + lost

    def mark(self, step: int) -> None:
        """A checkpoint of `step` is being saved: what came before it need not be done again."""
        self._marks = [*self._marks[1 - _MARKS :], (step, self.seconds())]
        self.write()

    def seconds(self) -> dict[str, float]:
        now = {name: self._watch.seconds.get(key, 0.0) for key, name in ACTIVITIES.items()}
        now["other"] = max(0.0, self._watch.wall - sum(now.values()))
        names = (*ACTIVITIES.values(), "lost", "other")
        return {name: self._before.get(name, 0.0) + now.get(name, 0.0) for name in names}

    def report(self) -> dict[str, Any]:
        """`starts`, `wall_seconds`, and by activity `seconds` and their `share` of the wall."""
        return goodput_report(self._starts, self.seconds())

    def write(self) -> None:
        write_json(self.path, {**self.report(), "marks": self._marks})
        self._written = self._watch.wall

    def write_now_and_then(self) -> None:
        if self._watch.wall - self._written > _WRITE_EVERY_SECONDS:
            self.write()


def goodput_report(starts: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    wall = sum(seconds.values())
    share = {name: value / wall if wall else 0.0 for name, value in seconds.items()}
    return {
        "starts": starts,
        "wall_seconds": wall,
        "seconds": dict(seconds),
        "share": share,
    }


def read_goodput(workdir: PathLike) -> dict[str, Any]:
    """The account of a run without its marks; an empty one where there is none."""
    path = epath.Path(workdir) / GOODPUT_FILE
    found = read_json(path, "goodput account") if path.exists() else {}
    return goodput_report(found.get("starts", 0), found.get("seconds", {}))


def goodput_table(report: Mapping[str, Any]) -> str:
    """The account in a few lines, for a terminal."""
    starts = report["starts"]
    title = f"{report['wall_seconds']:.1f} s in {starts} start{'s' if starts != 1 else ''}:"
    rows = [
        f"  {name:<10} {seconds:>10.1f} s {report['share'][name]:>7.1%}"
        for name, seconds in report["seconds"].items()
    ]
    return "\n".join([title, *rows])
