"""Keeps a run going over preemptions, hangs and lost hosts, within limits; says what was lost."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.common.errors import UserError
from tpu_scripts.cloud import CloudError
from tpu_scripts.slices import Slice, judge

PATIENCE = 5
"""So many times in a row may a host not answer before the slice is made anew."""

_PHASES = {
    "waiting": "waiting for a slice",
    "starting": "installing and starting",
    "running": "running",
}


class StopWatchingError(UserError):
    """The run is to be given up, for this reason."""


class Babysitter:
    """Watches one slice. It holds nothing that the cloud and the hosts don't say anew, so it may be
    killed and started again. `log` gets a line of JSON for each event."""

    def __init__(
        self,
        watched: Slice,
        log: Path,
        every: float = 30.0,
        clock: Callable[[], float] = time.time,
    ):
        self.slice, self.log, self.every, self._clock = watched, log, every, clock
        self.events: Counter[str] = Counter()
        self.seconds = dict.fromkeys(_PHASES, 0.0)
        self._begun = self._seen = clock()
        self._phase = "waiting"
        self._silent = 0
        self._starts = 0

    def run(self, keep: bool = False) -> bool:
        """Returns whether the run got to its end. The slice is deleted then, and where the run is
        given up, unless `keep`; the hosts' logs are gathered first."""
        try:
            while True:
                try:
                    if self._turn():
                        self._note("done")
                        return True
                    self._silent = 0
                except CloudError as error:
                    self._no_answer(error)
                self.slice.pause(self.every)
        except StopWatchingError as error:
            self._note("given up", reason=str(error))
            self.slice.say(f"given up: {error}")
            return False
        except KeyboardInterrupt:
            keep = True
            raise
        finally:
            self._account("waiting")
            if not keep:
                self._leave()

    def _turn(self) -> bool:
        """One look, and what follows from it; True when the run is done."""
        self._check_limits()
        state = self.slice.look()
        if state == "ready":
            return self._tend()
        self._account("waiting")
        if state == "gone":
            self._note("preempted")
            self._count_restart()
        if state in ("gone", "absent"):
            self.slice.create()
            self._note("asked for a slice")
        return False

    def _tend(self) -> bool:
        """The slice is ready: sees to its job."""
        jobs = self.slice.jobs()
        verdict = judge(jobs)
        self._account("running" if verdict == "running" else "starting")
        if verdict == "broken":
            ended = ", ".join(f"{job.host} with {job.code}" for job in jobs if job.code)
            raise StopWatchingError(f"the run ended with an error of its own ({ended})")
        if verdict == "again":
            self._note("ended", codes={job.host: job.code for job in jobs})
            self._count_restart()
            self.slice.stop()
        if verdict in ("again", "none"):
            self.slice.install()
            self.slice.start()
            self._starts += 1
            self._note("started", start=self._starts)
        return verdict == "done"

    def _no_answer(self, error: CloudError) -> None:
        self._account(self._phase)
        self._silent += 1
        self._note("no answer", reason=str(error), times=self._silent)
        if self._silent >= PATIENCE:
            self._silent = 0
            self._count_restart()
            try:
                self.slice.delete()
                self._note("deleted", reason="its hosts did not answer")
            except CloudError as again:
                self._note("no answer", reason=str(again))

    def _check_limits(self) -> None:
        settings = self.slice.settings
        try:
            self.slice.require_budget()
        except UserError as error:
            raise StopWatchingError(str(error)) from None
        hours = (self._clock() - self._begun) / 3600
        if hours > settings.max_hours:
            raise StopWatchingError(f"max_hours={settings.max_hours:g} have passed")

    def _count_restart(self) -> None:
        self.events["restart"] += 1
        if self.events["restart"] > self.slice.settings.max_restarts:
            raise StopWatchingError(
                f"it was started again max_restarts={self.slice.settings.max_restarts} times"
            )

    def _account(self, phase: str) -> None:
        """The time since the last look went to the phase that was seen then."""
        now = self._clock()
        self.seconds[self._phase] += now - self._seen
        self._seen, self._phase = now, phase

    def _note(self, event: str, **details: Any) -> None:
        self.events[event] += 1
        row = {"time": self._clock(), "event": event, **details}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = ", ".join(f"{key} {value}" for key, value in details.items())
        self.slice.say(f"{time.strftime('%H:%M:%S')} {event}{': ' if told else ''}{told}")

    def _leave(self) -> None:
        """Saves and gathers what can be, and deletes the slice."""
        try:
            if self.slice.look() == "ready":
                self.slice.stop()
                self.slice.logs(self.log.with_suffix(".logs"))
        except CloudError as error:
            self._note("no answer", reason=str(error))
        self.slice.delete()
        self._note("deleted")

    def summary(self) -> str:
        """Where the time went; what training did twice is in the run's own goodput.json."""
        total = sum(self.seconds.values()) or 1.0
        parts = [
            f"{self.seconds[phase] / 3600:.2f} h {text} ({self.seconds[phase] / total:.0%})"
            for phase, text in _PHASES.items()
        ]
        return (
            f"{', '.join(parts)}; preempted {self.events['preempted']} times, started "
            f"{self._starts} times; events are in {self.log}, and what was trained twice stands as "
            f"'lost' in {self.slice.settings.run_folder}/goodput.json"
        )
