"""The plots of a sweep's page: memory and rows, time and meshes, scaling, the Pareto front."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from data_pipeline.common.dot_chart import Dot, Dots, dot_chart
from data_pipeline.common.grouped_bar_chart import grouped_bar_chart
from data_pipeline.common.html import Html
from svit_jax.planning.plan import Plan
from svit_jax.planning.sweep.grid import mesh_text, rows_text

GIB = 2**30
_MOST_MESHES, _MOST_LINES = 12, 4
_SAMPLES = 1e6
Key = TypeVar("Key", bound=Hashable)


def memory_charts(plans: Iterable[Plan]) -> list[Html]:
    """What a device needs at each number of rows, for the fastest pairs of a mesh and a policy."""
    charts = []
    for kind, alike in grouped(plans, kind_of).items():
        pairs = grouped(alike, lambda plan: f"{mesh_text(plan.mesh)}, {_remat(plan)}")
        # Those that were tried at several numbers of rows say most; else in the order of the ranks.
        first = sorted(pairs.items(), key=lambda pair: len(pair[1]) == 1)[:_MOST_LINES]
        series = [Dots(name, _sorted(map(_memory_dot, line)), joined=True) for name, line in first]
        capacity = alike[0].memory.capacity / GIB
        level = (f"a device has {capacity:.2f} GiB", capacity)
        charts.append(
            dot_chart(kind, series, "rows a device at a time", "GiB a device", True, level)
        )
    return charts


def mesh_charts(plans: Iterable[Plan]) -> list[Html]:
    """The milliseconds a sample of each mesh at its fastest, beside those of each resource."""
    charts = []
    for kind, alike in grouped(filter(fits, plans), kind_of).items():
        best = [found[0] for found in grouped(alike, lambda p: mesh_text(p.mesh)).values()]
        shown = best[:_MOST_MESHES]
        if len(shown) < 2:
            continue
        times = {"the whole step": [_milliseconds(plan, plan.estimate.seconds) for plan in shown]}
        for limit in shown[0].estimate.limits:
            times[limit] = [_milliseconds(p, p.estimate.limits.get(limit, 0.0)) for p in shown]
        labels = [mesh_text(plan.mesh) for plan in shown]
        charts.append(grouped_bar_chart(kind, labels, times, "ms of the whole slice for a sample"))
    return charts


def scaling_charts(plans: Iterable[Plan]) -> list[Html]:
    """The fastest plan of each number of devices: throughput of a device, and hours."""
    lines = grouped(filter(fits, plans), lambda plan: f"{plan.device_kind}, {plan.choices['mode']}")
    best = {
        name: [found[0] for found in grouped(alike, lambda plan: plan.devices).values()]
        for name, alike in lines.items()
    }
    several = [(name, found) for name, found in best.items() if len(found) > 1]
    charts = []
    for start in range(0, len(several), _MOST_LINES):
        some = several[start : start + _MOST_LINES]
        for title, y_label, value in (
            ("Throughput of a device", "tokens/s a device", speed),
            ("Time for a million samples", "hours", _hours),
        ):
            series = [
                Dots(name, _sorted(Dot(p.devices, value(p), said(p)) for p in found), joined=True)
                for name, found in some
            ]
            charts.append(dot_chart(title, series, "devices", y_label, doubling=True))
    return charts


def pareto_charts(plans: Iterable[Plan]) -> list[Html]:
    """Memory and speed of every plan, those that nothing beats in both joined."""
    charts = []
    for kind, alike in grouped(plans, kind_of).items():
        if len(alike) < 2:
            continue
        front = pareto(alike)
        others = [plan for plan in alike if plan not in front]
        series = [
            Dots("nothing beats it", [_speed_dot(plan) for plan in front], joined=True),
            Dots("other plans", [_speed_dot(plan) for plan in others]),
        ]
        charts.append(dot_chart(kind, series, "GiB a device", "tokens/s a device"))
    return charts


def pareto(plans: Iterable[Plan]) -> list[Plan]:
    """The plans that fit of which no other is as fast with as little memory, least memory first."""
    front: list[Plan] = []
    for plan in sorted(filter(fits, plans), key=lambda p: (p.memory.total, -speed(p))):
        if not front or speed(plan) > speed(front[-1]):
            front.append(plan)
    return front


def grouped(plans: Iterable[Plan], key: Callable[[Plan], Key]) -> dict[Key, list[Plan]]:
    """The plans by a key, in their order (best first)."""
    found: dict[Key, list[Plan]] = {}
    for plan in plans:
        found.setdefault(key(plan), []).append(plan)
    return found


def kind_of(plan: Plan) -> str:
    return f"{plan.topology}, {plan.choices['mode']}"


def fits(plan: Plan) -> bool:
    return plan.memory.fits


def speed(plan: Plan) -> float:
    return plan.estimate.tokens_per_second


def said(plan: Plan) -> str:
    """What a point shows when it is pointed at."""
    return (
        f"{plan.topology}, {mesh_text(plan.mesh)}, {rows_text(_rows(plan))} a device, "
        f"{_remat(plan)}: {plan.memory.total / GIB:.2f} GiB, {speed(plan):,.0f} tokens/s a device"
    )


def _memory_dot(plan: Plan) -> Dot:
    return Dot(_rows(plan), plan.memory.total / GIB, said(plan), fits(plan))


def _speed_dot(plan: Plan) -> Dot:
    return Dot(plan.memory.total / GIB, speed(plan), said(plan), fits(plan))


def _sorted(dots: Iterable[Dot]) -> list[Dot]:
    return sorted(dots, key=lambda dot: dot.x)


def _remat(plan: Plan) -> str:
    return str(plan.choices["remat_decoder"])


def _rows(plan: Plan) -> float:
    return float(plan.choices["rows_per_device"])


def _milliseconds(plan: Plan, seconds: float) -> float:
    return 1000 * seconds / plan.work["samples"]


def _hours(plan: Plan) -> float:
    return plan.estimate.seconds * _SAMPLES / plan.work["samples"] / 3600
