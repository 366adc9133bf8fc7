"""Candidates in, outcomes out: checked, looked up, planned, as many at a time as fit."""

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from data_pipeline.common.progress import note, progress_bar
from svit_jax.planning.sweep.cache import PlanCache
from svit_jax.planning.sweep.children import Answer, Planner, Room
from svit_jax.planning.sweep.grid import Candidate, Outcome

Check = Callable[[Candidate], str | None]
"""Why the trainer would refuse a candidate, found without compiling; None: it would not."""


@dataclasses.dataclass
class Runner:
    """What it takes to plan candidates. `identity` is all that decides a candidate's plan but the
    versions, `stop` ends what runs. `compiles` counts what no cache knew."""

    planner: Planner
    check: Check
    identity: Callable[[Candidate], Any]
    cache: PlanCache
    room: Room
    stop: Callable[[], None] = lambda: None
    compiles: int = 0
    known: int = 0

    def run(self, candidates: Iterable[Candidate | Outcome]) -> list[Outcome]:
        """An outcome for each, in their order; all that ended is kept when it is interrupted."""
        outcomes: dict[int, Outcome] = {}
        waiting: list[tuple[int, Candidate]] = []
        for place, candidate in enumerate(candidates):
            outcome = candidate if isinstance(candidate, Outcome) else self._at_once(candidate)
            if outcome is None:
                assert isinstance(candidate, Candidate)
                waiting.append((place, candidate))
            else:
                outcomes[place] = outcome
        self._plan(waiting, outcomes)
        return [outcomes[place] for place in sorted(outcomes)]

    def _at_once(self, candidate: Candidate) -> Outcome | None:
        """What needs no compiling: a refusal, or what the cache knows."""
        refused = self.check(candidate)
        if refused:
            return Outcome(candidate, reason=refused, skipped=True)
        found = self.cache.find(self.identity(candidate), candidate)
        if found is None:
            return None
        self.known += 1
        return Outcome(candidate, found.plan, found.reason)

    def _plan(self, waiting: list[tuple[int, Candidate]], outcomes: dict[int, Outcome]) -> None:
        if not waiting:
            return
        queue, running = list(reversed(waiting)), dict[Future[Answer], tuple[int, Candidate]]()
        pool = ThreadPoolExecutor(max_workers=self.room.most)
        try:
            with progress_bar(len(waiting), "plans", "plan", shown=len(waiting) > 1) as bar:
                while queue or running:
                    while queue and self.room.admits(len(running)):
                        place, candidate = queue.pop()
                        running[pool.submit(self.planner, candidate)] = place, candidate
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        place, candidate = running.pop(ended)
                        outcomes[place] = self._kept(candidate, ended.result())
                        bar.update()
        except BaseException as error:
            self.stop()
            if not isinstance(error, Exception):  # someone stops it: Ctrl-C, SIGTERM
                missing = len(queue) + len(running)
                kept = "kept" if self.cache.keeps else "made, and lost without a cache"
                note(f"{len(waiting) - missing} of {len(waiting)} plans are {kept}.")
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _kept(self, candidate: Candidate, answer: Answer) -> Outcome:
        self.compiles += 1
        self.room.learn(answer.peak)
        self.cache.keep(self.identity(candidate), answer)
        return Outcome(candidate, answer.plan, answer.reason)


def ranked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that fit first, the fastest of them first; then those that don't, and those without a
    plan: refused by the compiler, then by the trainer."""

    def place(outcome: Outcome) -> tuple[int, float]:
        if outcome.plan is None:
            return (3 if outcome.skipped else 2), 0.0
        return (0 if outcome.fits else 1), -outcome.plan.estimate.tokens_per_second

    return sorted(outcomes, key=place)
