"""How long a compiled step takes, estimated: its schedule is walked with a clock.

The instructions of a TPU's program run one after another. Each takes as long as the busier of two:
the matrix units, at a share of their peak (`kernels.matrix_share`), or HBM, at its bandwidth times
`HBM_SHARE`; attention's kernels no less than their bundles (`kernels.BUNDLES`). What is started and
waited for later (collectives, copies between memories) goes on beside them; a wait costs what is
not done by then. A loop takes its trips times one walk through its body; of branches the dearest
counts. Other work of the vector units, fused with either, is not counted.
"""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from svit_jax.chips import Chip
from svit_jax.planning.cost import MOVING, Product, products, traffic
from svit_jax.planning.groups import KINDS, Exchange, exchange
from svit_jax.planning.hlo import Computation, Instruction, Module
from svit_jax.planning.kernels import matrix_share, splash_call
from svit_jax.planning.loops import Value, loop_values, trip_count
from svit_jax.planning.network import Network
from svit_jax.planning.plan import Collective

HBM_SHARE = 0.9
"""Of the nominal bandwidth: the rest goes on refresh and on turning from reads to writes."""

# In a program for simulated devices nothing is overlapped. A GPU's compiler gathers weights ahead
# and reduces gradients behind, by the end of a layer; for what these axes split it waits.
_WAITED_FOR = frozenset(("tensor", "sequence"))

COMPUTE, KERNELS, HBM = "matrix units", "attention's kernels", "HBM"
INTERCONNECT = "interconnect"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A step's estimate. `busy` are seconds of each resource, `exposed` those in which a device
    only waits for others; `flops` and `hbm_bytes` are a device's."""

    seconds: float
    exposed: float
    busy: Mapping[str, float]
    flops: float
    hbm_bytes: float
    collectives: tuple[Collective, ...]


def product_seconds(chip: Chip, product: Product, share: float) -> float:
    """A product's time in the matrix units, whose sides it fills up to whole numbers, at a share of
    their peak."""

    def filled(size: int) -> float:
        return -(-size // chip.matrix_unit) * chip.matrix_unit / max(1, size)

    return product.flops * filled(product.summed) * filled(product.columns) / (chip.flops * share)


def walk(
    module: Module,
    chip: Chip,
    network: Network,
    mesh: Mapping[str, int],
    compiler_options: Iterable[str] = (),
) -> Schedule:
    """The schedule of a module that was compiled with these options, on a mesh with these axes."""
    found = _Walk(module, chip, network, mesh, matrix_share(chip, compiler_options))
    seconds = found.run(module.entry, None, 1)
    rows = tuple(
        Collective(kind, axes, where, count, round(found.sent[key]), found.hidden[key])
        for key, count in sorted(found.counts.items())
        for kind, axes, where in (key,)
    )
    return Schedule(seconds, found.exposed, found.busy, found.flops, found.hbm_bytes, rows)


@dataclasses.dataclass(frozen=True)
class _Running:
    """What was started: when it is done, and the core's work until then."""

    done: float
    worked: float
    key: Any = None


class _Walk:
    def __init__(
        self, module: Module, chip: Chip, network: Network, mesh: Mapping[str, int], share: float
    ):
        self._module, self._chip, self._network, self._mesh = module, chip, network, mesh
        self._share = share
        self._clock = self._worked = 0.0
        self._times = 1
        self._running: dict[str, _Running] = {}
        self._left: list[str] = []
        self._free: dict[Any, float] = {}
        self.flops = self.hbm_bytes = self.exposed = 0.0
        self.busy = dict.fromkeys((COMPUTE, KERNELS, HBM, INTERCONNECT), 0.0)
        self.counts: Counter[Any] = Counter()
        self.sent: defaultdict[Any, float] = defaultdict(float)
        self.hidden: Counter[Any] = Counter()

    def run(self, computation: Computation, given: Value, times: int) -> float:
        """The seconds of one run of a computation that a step runs so many times."""
        outer = self._clock, self._free, self._times, self._left
        self._clock, self._free, self._times, self._left = 0.0, {}, times, []
        for each in computation.instructions.values():
            self._take(computation, each, given)
        for name in self._left:
            self._wait(name)
        seconds = self._clock
        self._clock, self._free, self._times, self._left = outer
        return seconds

    def _take(self, computation: Computation, each: Instruction, given: Value) -> None:
        if each.opcode == "while":
            trips = trip_count(self._module, computation, each, given)
            body = dict(re.findall(r"\b(condition|body)=%?([\w.\-]+)", each.attributes))["body"]
            values = loop_values(self._module, computation, each, given)
            self._loop(self._module.computations[body], values, trips)
        elif each.opcode in ("conditional", "call"):
            self._branch(each)
        elif each.opcode.endswith("-done"):
            self._wait(each.operands[0])
        elif each.opcode.removesuffix("-start") in KINDS:
            self._exchange(computation, each, each.name, each.opcode.endswith("-start"))
        elif each.opcode in MOVING:
            self._copy(computation, each)
        else:
            for fused, inner in self._fused_collectives(each):
                self._fused_exchange(fused, inner)
            self._work(computation, each)

    def _loop(self, body: Computation, values: Value, trips: int) -> None:
        worked = self._worked
        seconds = self.run(body, values, self._times * trips)
        self._worked = worked + (self._worked - worked) * trips
        self._clock += seconds * trips

    def _branch(self, each: Instruction) -> None:
        """The dearest branch, alone: what the others would do is not counted."""
        branches = [self._module.computations[name] for name in each.called]
        costs = [
            _Walk(self._module, self._chip, self._network, self._mesh, self._share)
            for _ in branches
        ]
        seconds = [walk.run(c, None, 1) for walk, c in zip(costs, branches, strict=True)]
        if branches:
            dearest = max(range(len(branches)), key=seconds.__getitem__)
            self._clock += self.run(branches[dearest], None, self._times)

    def _work(self, computation: Computation, each: Instruction) -> None:
        found = list(products(self._module, computation, each))
        # XLA's CPU compiler fuses little: on a GPU what lies between products rarely reaches HBM.
        counted = found or not self._network.simulated
        moved = traffic(self._module, computation, each) if counted else 0
        matrix = sum(product_seconds(self._chip, product, self._share) for product in found)
        memory = moved / (self._chip.memory_bandwidth * HBM_SHARE)
        call = splash_call(computation, each)
        kernel = max(matrix, call.core_seconds(self._chip)) if call else 0.0
        self.flops += self._times * sum(product.flops for product in found)
        self.hbm_bytes += self._times * moved
        self.busy[COMPUTE] += self._times * matrix
        self.busy[KERNELS] += self._times * kernel
        self.busy[HBM] += self._times * memory
        self._clock += max(matrix, kernel, memory)
        self._worked += max(matrix, kernel, memory)

    def _copy(self, computation: Computation, each: Instruction) -> None:
        moved = traffic(self._module, computation, each)
        seconds = moved / (self._chip.memory_bandwidth * HBM_SHARE)
        self.hbm_bytes += self._times * moved
        self.busy[HBM] += self._times * seconds
        self._start(each.name, HBM, seconds)

    def _exchange(
        self, computation: Computation, each: Instruction, name: str, beside: bool
    ) -> None:
        operands = tuple(
            shape for operand in each.operands for shape in computation.instructions[operand].shapes
        )
        found = exchange(each, operands, self._mesh, computation.users.get(each.name, ()))
        if not found.axes:
            return
        seconds = self._network.seconds(found)
        self.busy[INTERCONNECT] += self._times * seconds
        key = self._count(found)
        direction = math.copysign(1, found.step) if found.step else 0
        self._start(name, (found.axes, direction), seconds, key)
        if self._network.simulated and not set(found.axes) & _WAITED_FOR:
            self._left.append(name)
        elif not beside:
            self._wait(name)

    def _count(self, found: Exchange) -> Any:
        where = self._network.links(found.group).network
        key = (found.kind, found.axes, where)
        self.counts[key] += self._times
        self.sent[key] += self._times * found.bytes
        return key

    def _fused_collectives(self, each: Instruction) -> Iterator[tuple[Computation, Instruction]]:
        if each.opcode == "fusion":
            fused = self._module.fused(each)
            for inner in fused.instructions.values():
                if inner.opcode.removesuffix("-start") in KINDS:
                    yield fused, inner

    def _fused_exchange(self, fused: Computation, inner: Instruction) -> None:
        """A TPU cuts a collective up among fusions: one starts it, others with products in them
        carry it on, the last waits for it. They share the channel's number."""
        parts = {x.attribute("custom_call_target") for x in fused.instructions.values()}
        name = f"channel {inner.attribute('channel_id')}"
        if '"AsyncCollectiveStart"' in parts:
            self._exchange(fused, inner, name, beside=True)
        elif '"AsyncCollectiveDone"' in parts:
            self._wait(name)
        elif name not in self._running:
            self._exchange(fused, inner, inner.name, beside=False)

    def _start(self, name: str, resource: Any, seconds: float, key: Any = None) -> None:
        done = max(self._clock, self._free.get(resource, 0.0)) + seconds
        self._free[resource] = done
        self._running[name] = _Running(done, self._worked, key)

    def _wait(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is None:
            return
        waited = max(0.0, running.done - self._clock)
        self._clock += waited
        if running.key is not None:
            self.exposed += self._times * waited
            if self._worked > running.worked:
                self.hidden[running.key] += self._times
