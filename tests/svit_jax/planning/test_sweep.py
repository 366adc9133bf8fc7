"""Grid, cache, children and search, on closed-form planners in place of compilers."""

import dataclasses
import itertools
import json
import math
import os
import sys
import threading
import time

import pytest
from stand_in_planner import GIB, StandIn

from svit_jax.planning.sweep.cache import PlanCache
from svit_jax.planning.sweep.children import Answer, ChildPlanner, Room
from svit_jax.planning.sweep.grid import Candidate, Outcome, Space, factorings
from svit_jax.planning.sweep.runner import Runner, ranked
from svit_jax.planning.sweep.search import find_best

REMATS = ("none", "dots", "qkv", "attention", "full")
VERSIONS = {"jax": "1.0"}


def space(**changes) -> Space:
    given = Space(
        batch_sizes={"full.py": 32},
        accumulates={"full.py": 1},
        devices={"toy:32": 32},
        rows=(1, 2, 4, 8, 16, 32),
        remats=REMATS,
    )
    return dataclasses.replace(given, **changes)


def runner(planner, folder="", check=lambda _: None, room=None) -> Runner:
    return Runner(
        planner,
        check,
        lambda candidate: [candidate.topology, candidate.settings],
        PlanCache(str(folder), VERSIONS),
        room or Room(2, lambda: 64 * GIB),
    )


@pytest.mark.parametrize("number", [1, 12, 64, 97])
def test_all_factorings(number):
    found = list(factorings(number, 4))
    divisors = [size for size in range(1, number + 1) if number % size == 0]
    every = [f for f in itertools.product(divisors, repeat=4) if math.prod(f) == number]
    assert sorted(found) == sorted(every)


def test_rows_of_a_step_stay_or_follow():
    """32 rows a step on a mesh where 8 groups of devices have rows of their own: 2 rows at a time
    are two microbatches; 3 are no divisor; 8 would be 64 rows, unless the step grows."""
    one = {"axes": {"replica": (2,), "fsdp": (4,), "tensor": (4,)}, "remats": ("full",)}
    kept = list(space(rows=(2, 3, 8), **one).candidates())
    assert isinstance(kept[0], Candidate)
    assert (kept[0].batch_size, kept[0].accumulate) == (32, 2)
    assert isinstance(kept[1], Outcome) and kept[1].skipped and "are 24, which" in kept[1].reason
    assert isinstance(kept[2], Outcome) and "are 64, which" in kept[2].reason
    grown = list(space(rows=(2, 3, 8), grow=True, **one).candidates())
    assert [candidate.batch_size for candidate in grown] == [16, 24, 64]
    assert "data.batch_size=24" in grown[1].settings and "mesh.replica=2" in grown[1].settings


def test_outcomes_in_order_and_ranked():
    """Refused candidates are not planned; a compiler's failure is a row; what fits comes first."""

    def planner(candidate):
        if candidate.remat == "none":
            return Answer(None, "out of memory: 20 GiB of 16")
        return StandIn(state=100, capacity=8)(candidate)

    def check(candidate):
        return "4 heads do not divide" if candidate.sizes["tensor"] > 4 else None

    made = runner(planner, check=check)
    outcomes = made.run(space(axes={"replica": (1,), "sequence": (1,)}).candidates())
    order = ranked(outcomes)
    assert len(outcomes) == 6 * 6 * 5
    assert {o.reason for o in outcomes if o.candidate.mesh[2] > 4 and o.candidate.rows == 1} == {
        "4 heads do not divide"
    }
    kinds = [
        "fits" if o.fits else "too large" if o.plan else "skipped" if o.skipped else "failed"
        for o in order
    ]
    assert [kind for kind, _ in itertools.groupby(kinds)] == [
        "fits",
        "too large",
        "failed",
        "skipped",
    ]
    speeds = [o.plan.estimate.tokens_per_second for o in order if o.fits]
    assert speeds == sorted(speeds, reverse=True) and len(speeds) > 5
    assert made.compiles == sum(not o.skipped for o in outcomes)


def test_a_second_run_compiles_nothing(tmp_path):
    def planner(candidate):
        if candidate.rows == 8:
            return Answer(None, "killed", final=False)
        if candidate.rows == 4:
            return Answer(None, "out of memory")
        return StandIn()(candidate)

    grid = space(axes={"tensor": (2,), "replica": (1,), "sequence": (1,)}, grow=True)
    first, second = runner(planner, tmp_path), runner(planner, tmp_path)
    outcomes = first.run(grid.candidates())
    assert first.compiles == 30
    assert second.run(grid.candidates()) == outcomes
    assert (second.compiles, second.known) == (5, 25), "only what was killed is tried again"
    assert not list(tmp_path.glob(".*")), "nothing half-written"
    other = dataclasses.replace(runner(planner), cache=PlanCache(str(tmp_path), {"jax": "1.1"}))
    other.run(grid.candidates())
    assert other.compiles == 30, "other versions, other plans"
    for file in tmp_path.iterdir():
        file.write_text("{")
    assert runner(planner, tmp_path).run(grid.candidates()) == outcomes, "damaged: made again"


def test_a_plan_found_under_another_name(tmp_path):
    """The same content from another file keeps the name that was asked for."""
    first = Candidate("full.py", (), "toy:4", (1, 4, 1, 1), 1, 1, "full")
    other = dataclasses.replace(first, config="copy.py")
    by_content = dataclasses.replace(runner(StandIn(), tmp_path), identity=lambda _: "same")
    by_content.run([first])
    (outcome,) = by_content.run([other])
    assert outcome.plan.config == "copy.py" and by_content.compiles == 1


def test_children_run_beside_each_other_only_as_memory_allows():
    available = 20 * GIB
    room = Room(8, lambda: available)
    assert [room.admits(running) for running in (0, 4, 5)] == [True, True, False]  # 4 GiB each
    room.learn(9 * GIB)
    room.learn(2 * GIB)
    assert [room.admits(running) for running in (0, 1, 2)] == [True, True, False]
    room.learn(90 * GIB)
    assert [room.admits(running) for running in (0, 1)] == [True, False]
    available = 3 * GIB  # others took it meanwhile
    room = Room(8, lambda: available)
    assert room.admits(0) and not room.admits(1)
    assert not Room(2, lambda: 99 * GIB).admits(2), "no more than cores"


def test_the_runner_keeps_to_the_room():
    """Closed form: of 24 GiB with 8 GiB a child, three run at once, once the first has shown it."""
    lock, running, most = threading.Lock(), 0, [0]

    def planner(candidate):
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return dataclasses.replace(StandIn()(candidate), peak=8 * GIB)

    made = runner(planner, room=Room(16, lambda: 24 * GIB))
    made.run(space(axes={"tensor": (2,), "replica": (1,)}).candidates())
    assert max(most[:7]) <= 6 and max(most[20:]) <= 3


def child(*arguments: str) -> ChildPlanner:
    return ChildPlanner(lambda candidate: [sys.executable, *arguments])


ONE = Candidate("full.py", (), "toy:4", (1, 4, 1, 1), 1, 1, "full")


def test_what_children_answer(tmp_path):
    plan = StandIn()(ONE).plan
    file = tmp_path / "plan.json"
    file.write_text("a word first\n" + json.dumps(plan.to_json()))
    answer = child("-c", f"print(open({str(file)!r}).read())")(ONE)
    assert answer.plan == plan and answer.peak > 2**20
    refused = child("-c", "import sys; sys.exit('warning\\nsvit: too small; give more.')")(ONE)
    assert (refused.plan, refused.reason, refused.final) == (None, "too small; give more.", True)
    crashed = child("-c", "raise ValueError('out of luck')")(ONE)
    assert crashed.reason == "out of luck" and not crashed.final
    nonsense = child("-c", "print('no JSON')")(ONE)
    assert "no plan" in nonsense.reason and not nonsense.final
    killed = child("-c", "import os; os.kill(os.getpid(), 9)")(ONE)
    assert "SIGKILL" in killed.reason and not killed.final


def test_ctrl_c_ends_the_children_and_keeps_what_is_done(tmp_path, capfd):
    """Of three the first is kept from before, the second runs when the interruption comes: no child
    goes on, and what is kept is said."""
    started = tmp_path / "started"
    sleeper = child(
        "-c",
        f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    cache = tmp_path / "plans"

    def planner(candidate):
        if candidate.rows == 1:
            return StandIn()(candidate)
        return sleeper(candidate)

    class Interrupting(Room):
        """Ctrl-C in place of the third admission, once the sleeper runs."""

        def admits(self, running: int) -> bool:
            if running == 0:
                return True
            while not (started.exists() and started.read_text()):
                time.sleep(0.01)
            raise KeyboardInterrupt

    made = runner(planner, cache, room=Interrupting(1, lambda: GIB))
    made.stop = sleeper.stop
    three = [dataclasses.replace(ONE, rows=rows) for rows in (1, 2, 4)]
    runner(StandIn(), cache).run(three[:1])
    with pytest.raises(KeyboardInterrupt):
        made.run(three)
    assert made.known == 1 and "0 of 2 plans are kept" in capfd.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


CHIPS = {
    "small": StandIn(capacity=16),
    "large, slow links": StandIn(capacity=95, tensor_cost=0.05, sequence_cost=0.03),
    "little memory": StandIn(capacity=9, state=180, activations=20),
    "fast links": StandIn(capacity=32, tensor_cost=0.001, sequence_cost=0.0005, gather=0.2),
    "heavy gathers": StandIn(capacity=32, gather=1.0),
    "light model": StandIn(capacity=16, state=7, activations=3),
}


@pytest.mark.parametrize("grow", [False, True])
@pytest.mark.parametrize("name", CHIPS)
def test_the_search_finds_what_the_grid_finds(name, grow):
    """Every cell of the grid, in order, against the climb; and how many compilations it took."""
    given = space(grow=grow, devices={"toy:64": 64})

    def check(candidate):
        return "40 heads do not divide" if 40 % candidate.sizes["tensor"] else None

    whole, climb = runner(CHIPS[name], check=check), runner(CHIPS[name], check=check)
    best = ranked(whole.run(given.candidates()))[0]
    found = ranked(find_best(given, climb))[0]
    assert best.fits, "the case is one where something fits"
    assert found.plan.estimate.tokens_per_second == best.plan.estimate.tokens_per_second
    assert found.candidate == best.candidate
    assert climb.compiles < whole.compiles / 4


def test_the_search_where_nothing_fits():
    """It says so by the outcome that misses by least."""
    given = space()
    nothing = StandIn(capacity=1)
    found = ranked(find_best(given, runner(nothing)))
    whole = runner(nothing).run(given.candidates())
    least = min(o.plan.memory.total for o in whole if o.plan)
    assert not any(outcome.fits for outcome in found)
    assert min(o.plan.memory.total for o in found if o.plan) == least
    nowhere = find_best(given, runner(nothing, check=lambda _: "no"))
    assert nowhere and all(outcome.skipped for outcome in nowhere)
