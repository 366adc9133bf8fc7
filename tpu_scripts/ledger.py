"""What a slice has cost so far, at most: from what was seen of it, and when."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path


class Ledger:
    """A line in a file each time the slice is seen. Between two sightings it counts as running if
    it ran at either of them, so the sum is never too small while somebody looks."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = path
        self._clock = clock
        self._rows = [json.loads(line) for line in _whole_lines(path)]

    def saw(self, per_hour: float) -> None:
        """Adds a sighting; `per_hour` is 0 where nothing runs."""
        row = {"time": self._clock(), "per_hour": per_hour}
        self._rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    @property
    def spent(self) -> float:
        """Dollars. What was last seen running still runs."""
        total = 0.0
        last = self._rows[-1:]
        now = [{**row, "time": max(self._clock(), row["time"])} for row in last]
        for row, after in itertools.pairwise([*self._rows, *now]):
            rate = max(row["per_hour"], after["per_hour"])
            total += (after["time"] - row["time"]) / 3600 * rate
        return total


def _whole_lines(path: Path) -> list[str]:
    """The lines that were written to their end."""
    text = path.read_text() if path.exists() else ""
    return text.split("\n")[:-1]
