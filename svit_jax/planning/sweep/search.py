"""The fastest plan that fits, in fewer compilations than the grid has: a climb over meshes and
remat policies, each at the most rows that its memory takes."""

import dataclasses
from collections.abc import Iterator

from data_pipeline.common.progress import note
from svit_jax.planning.sweep.grid import Candidate, Mesh, Outcome, Space, mesh_text, rows_text
from svit_jax.planning.sweep.runner import Runner

_NOTHING = (-1, 0.0)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the climb stands: rows are for `_Climb.column` to find."""

    mesh: Mesh
    remat: str


def find_best(space: Space, runner: Runner) -> list[Outcome]:
    """What the climb looked at, of every config and topology of the space.

    It takes for granted that more rows at a time need more memory and are no slower, and that from
    anywhere a better place is a step away (a prime factor from one mesh axis to another, the next
    remat policy, or both) unless it is the best. It begins with the fewest bytes a device: the
    first valid one of `space.meshes`, and the last of `space.remats`.
    """
    seen: list[Outcome] = []
    for config in space.batch_sizes:
        for topology in space.devices:
            climb = _Climb(space, runner, config, topology)
            climb.run()
            seen += climb.seen.values()
    return seen


class _Climb:
    def __init__(self, space: Space, runner: Runner, config: str, topology: str):
        self._space, self._runner = space, runner
        self._config, self._topology = config, topology
        self._meshes = space.meshes(topology)
        self._rows = 0  # what the last place took
        self.seen: dict[tuple[_Place, int], Outcome] = {}

    def run(self) -> None:
        start = self._start()
        if start is None:
            return
        here, value = start, self._column(start)
        tried = {here}
        while True:
            for place in self._neighbours(here):
                if place in tried:
                    continue
                tried.add(place)
                found = self._column(place)
                if found > value:
                    here, value = place, found
                    break
            else:
                return

    def _start(self) -> _Place | None:
        """The first valid mesh, with the thriftiest policy."""
        for mesh in self._meshes:
            place = _Place(mesh, self._space.remats[-1])
            if self._valid(place):
                return place
        return None

    def _neighbours(self, here: _Place) -> Iterator[_Place]:
        """A step away in one thing, then in both: another mesh may leave memory for a policy that
        pays only there."""
        remats = list(self._space.remats)
        at = remats.index(here.remat)
        others = [remats[index] for index in (at - 1, at + 1) if 0 <= index < len(remats)]
        known = set(self._meshes)
        moves = [mesh for mesh in _moves(here.mesh) if mesh in known]
        yield from (_Place(here.mesh, remat) for remat in others)
        yield from (_Place(mesh, here.remat) for mesh in moves)
        yield from (_Place(mesh, remat) for remat in others for mesh in moves)

    def _valid(self, place: _Place) -> list[int]:
        """The rows a device that the trainer would take, fewest first."""
        return [rows for rows in sorted(self._space.rows) if not self._refusal(place, rows)]

    def _refusal(self, place: _Place, rows: int) -> bool:
        found = self._candidate(place, rows)
        if isinstance(found, Outcome):
            self.seen[place, rows] = found
            return True
        reason = self._runner.check(found)
        if reason:
            self.seen[place, rows] = Outcome(found, reason=reason, skipped=True)
        return bool(reason)

    def _candidate(self, place: _Place, rows: int) -> Candidate | Outcome:
        return self._space.candidate(self._config, self._topology, place.mesh, rows, place.remat)

    def _column(self, place: _Place) -> tuple[int, float]:
        """How good a place is at the most rows that fit there; larger is better.

        The bisection begins at the rows that the last place took: a neighbour takes about as many.
        """
        rows = self._valid(place)
        if not rows:
            return _NOTHING
        fits, fails = -1, len(rows)  # the largest index known to fit, the smallest known not to
        probe = max(sum(each <= self._rows for each in rows) - 1, 0)
        while fits + 1 < fails:
            if self._outcome(place, rows[probe]).fits:
                fits = probe
                probe = probe + 1 if fails == len(rows) else (fits + fails) // 2
            else:
                fails = probe
                probe = (fits + fails) // 2
        if fits >= 0:
            self._rows = rows[fits]
        return _value(self._outcome(place, rows[max(fits, 0)]))

    def _outcome(self, place: _Place, rows: int) -> Outcome:
        if (place, rows) not in self.seen:
            (found,) = self._runner.run([self._candidate(place, rows)])
            self.seen[place, rows] = found
            mesh = mesh_text(found.candidate.sizes)
            where = f"{self._topology}, {mesh}, {rows_text(rows)} a device, {place.remat}"
            note(f"{where}: {_verdict(found)}")
        return self.seen[place, rows]


def _verdict(outcome: Outcome) -> str:
    plan = outcome.plan
    if plan is None:
        return "no plan"
    if not outcome.fits:
        return f"{plan.memory.total / 2**30:.2f} of {plan.memory.capacity / 2**30:.2f} GiB"
    return f"{plan.estimate.tokens_per_second:,.0f} tokens/s a device"


def _value(outcome: Outcome) -> tuple[int, float]:
    """Anything that fits is better than what doesn't; of those, what misses by less."""
    if outcome.plan is None:
        return _NOTHING
    if not outcome.fits:
        return 0, -float(outcome.plan.memory.total)
    return 1, outcome.plan.estimate.tokens_per_second


def _moves(mesh: Mesh) -> Iterator[Mesh]:
    """Meshes that a prime factor of one axis makes on another."""
    for source, size in enumerate(mesh):
        for prime in _primes(size):
            for target in range(len(mesh)):
                if target != source:
                    moved = list(mesh)
                    moved[source] //= prime
                    moved[target] *= prime
                    yield tuple(moved)


def _primes(number: int) -> list[int]:
    return [
        factor
        for factor in range(2, number + 1)
        if number % factor == 0 and all(factor % smaller for smaller in range(2, factor))
    ]
