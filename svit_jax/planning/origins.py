"""Where a value of a compiled program comes from, through loops, branches and copies."""

import dataclasses
import functools

from svit_jax.planning.buffers import Index
from svit_jax.planning.hlo import Computation, Instruction, Module

Place = tuple[Instruction, Index]
"""A value: whose result, and which of it."""

# They hand on what they are given.
_SAME = frozenset(("bitcast", "copy", "copy-start", "copy-done", "optimization-barrier"))
# They change where and how an array lies, and in which type, but not what it says.
_MOVED = _SAME | {
    "all-gather",
    "all-gather-done",
    "all-gather-start",
    "collective-permute",
    "collective-permute-done",
    "collective-permute-start",
    "convert",
    "dynamic-slice",
    "reshape",
    "slice",
    "slice-done",
    "slice-start",
    "transpose",
}
# Custom calls of a TPU's compiler that do so: it cuts gathers up among fusions.
_JOINS = frozenset(('"ConcatBitcast"', '"AsyncCollectiveStart"', '"AsyncCollectiveDone"'))


@dataclasses.dataclass(frozen=True)
class Origins:
    """Of one module, whose instructions have names of their own in all computations."""

    module: Module

    @functools.cached_property
    def _homes(self) -> dict[str, Computation]:
        return {
            name: computation
            for computation in self.module.computations.values()
            for name in computation.instructions
        }

    @functools.cached_property
    def _callers(self) -> dict[str, Instruction]:
        """The loop, branching or fusion that runs a computation."""
        return {
            called: each
            for computation in self.module.computations.values()
            for each in computation.instructions.values()
            if each.opcode in ("while", "conditional", "fusion")
            for called in each.called
        }

    def maker(self, name: str, index: Index) -> Instruction | None:
        """The instruction that made the value: of what a loop carries, the one in its body that
        changes it last; of what no loop changes, the one before the loop. An argument of the
        program is its own maker; None where the text does not have the name."""
        if name not in self._homes:
            return None
        return self._made((self._homes[name].instructions[name], index))[0]

    def _made(self, place: Place) -> Place:
        seen: set[tuple[str, Index]] = set()
        while (place[0].name, place[1]) not in seen:
            seen.add((place[0].name, place[1]))
            place = self._before(*place, seen) or place
        return place

    def _before(
        self, each: Instruction, index: Index, seen: set[tuple[str, Index]]
    ) -> Place | None:
        """What hands the value to an instruction that only hands it on; None: it makes it."""
        home = self._homes[each.name]
        if each.opcode in _SAME and each.operands:
            return home.operand(each, 0), () if each.opcode == "copy-start" else index
        if each.opcode == "get-tuple-element":
            return home.operand(each, 0), (*each.numbers("index"), *index)
        if each.opcode == "tuple" and index:
            return home.operand(each, index[0]), index[1:]
        if each.opcode == "while":
            return self._body(each).root, index
        if each.opcode == "conditional":
            roots = [self.module.computations[name].root for name in each.called]
            places = [self._through(root, index) for root in roots]
            made = [place for place in places if place[0].opcode != "parameter"]
            return (made or places)[-1]
        caller = self._callers.get(home.name)
        if each.opcode == "parameter" and caller is not None and caller.opcode != "fusion":
            return self._given(each, index, home, caller, seen)
        return None

    def _given(
        self,
        each: Instruction,
        index: Index,
        home: Computation,
        caller: Instruction,
        seen: set[tuple[str, Index]],
    ) -> Place:
        """Of a body's argument: what the body makes of it, or, if that is itself, what the loop is
        given. Of a branch's: what the branching is given for it."""
        outside = self._homes[caller.name]
        if caller.opcode == "conditional":
            return outside.operand(caller, 1 + caller.called.index(home.name)), index
        made = self._through(home.root, index)
        carried = made[0].opcode == "parameter" and made == (each, index)
        if carried or (home.root.name, index) in seen:
            return outside.operand(caller, 0), index
        return home.root, index

    def _through(self, each: Instruction, index: Index) -> Place:
        """The value's place before tuples and copies of the same computation."""
        home = self._homes[each.name]
        while True:
            if each.opcode in _SAME and each.operands:
                index = () if each.opcode == "copy-start" else index
                each = home.operand(each, 0)
            elif each.opcode == "get-tuple-element":
                each, index = home.operand(each, 0), (*each.numbers("index"), *index)
            elif each.opcode == "tuple" and index:
                each, index = home.operand(each, index[0]), index[1:]
            else:
                return each, index

    def _body(self, loop: Instruction) -> Computation:
        return self.module.computations[(loop.attribute("body") or "").lstrip("%")]

    def copied(self, name: str, index: Index) -> Instruction | None:
        """The program's argument that the value is a copy of: gathered, sliced or converted; None
        where it is computed."""
        if name not in self._homes:
            return None
        seen: set[tuple[str, Index]] = set()
        each, index = self._made((self._homes[name].instructions[name], index))
        while (each.name, index) not in seen:
            seen.add((each.name, index))
            if each.opcode == "parameter" and self._homes[each.name] is self.module.entry:
                return each
            source = self._source(each, index)
            if source is None:
                return None
            each, index = self._made(source)
        return None

    def _source(self, each: Instruction, index: Index) -> Place | None:
        """What an instruction copies; None where it computes."""
        home = self._homes[each.name]
        if each.opcode == "fusion":
            return self.module.fused(each).root, index
        if each.opcode == "parameter" and home.name in self._callers:  # of a fusion
            fusion = self._callers[home.name]
            return self._homes[fusion.name].operand(fusion, int(each.literal)), index
        if each.opcode == "dynamic-update-slice":
            return home.operand(each, 1), ()
        if each.opcode in _MOVED or each.attribute("custom_call_target") in _JOINS:
            operands = (home.instructions[name] for name in each.operands)
            return max(operands, key=lambda o: sum(shape.bytes for shape in o.shapes)), ()
        return None
