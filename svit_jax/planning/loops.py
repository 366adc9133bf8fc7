"""How often a compiled loop runs. The text does not always say: then its counter is run.

XLA writes `known_trip_count` on some backends. Elsewhere the loop's condition and what its body
does to the counter are evaluated as integers, from the counter's first value on, until the
condition fails. Values that aren't whole numbers known while compiling are None.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from svit_jax.planning.hlo import Computation, Instruction, Module

Value = Any
"""An int, a tuple of values, or None where it isn't known."""

_MOST_TRIPS = 1_000_000
_ALIKE = ("copy", "convert", "bitcast", "reshape", "copy-done", "bitcast-convert", "opt-barrier")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
    "EQ": operator.eq,
    "NE": operator.ne,
}
_ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
    "and": operator.and_,
    "or": operator.or_,
}


def trip_count(module: Module, caller: Computation, loop: Instruction, given: Value) -> int:
    """How often the body of a `while` runs; `given` is the value of its caller's parameter.

    Raises ValueError where that can't be derived.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition, body = (module.computations[name] for name in _condition_and_body(loop))
    values = _Evaluator(module, caller, (given,)).value(loop.operands[0])
    counters = _counters(condition)
    for trips in range(_MOST_TRIPS):
        going = _Evaluator(module, condition, (values,)).value(condition.root.name)
        if going is None or values is None:
            break
        if not going:
            return trips
        after = _Evaluator(module, body, (values,))
        changed = {place: after.element(body.root, place) for place in counters}
        values = tuple(changed.get(place, value) for place, value in enumerate(values))
    raise ValueError(f"the trips of loop %{loop.name} in %{caller.name} can't be counted")


def loop_values(module: Module, caller: Computation, loop: Instruction, given: Value) -> Value:
    """What a loop's body is given: of its tuple, the elements that no trip changes."""
    body = module.computations[_condition_and_body(loop)[1]]
    first = _Evaluator(module, caller, (given,)).value(loop.operands[0])
    if not isinstance(first, tuple):
        return None
    return tuple(value if _is_kept(body, place) else None for place, value in enumerate(first))


def _condition_and_body(loop: Instruction) -> tuple[str, str]:
    named = dict(re.findall(r"\b(condition|body)=%?([\w.\-]+)", loop.attributes))
    return named["condition"], named["body"]


def _counters(condition: Computation) -> set[int]:
    """The places in the loop's tuple that its condition looks at."""
    elements = [x for x in condition.instructions.values() if x.opcode == "get-tuple-element"]
    return {place for each in elements for place in each.numbers("index")}


def _is_kept(body: Computation, place: int) -> bool:
    if body.root.opcode != "tuple":
        return False
    element = body.operand(body.root, place)
    return (
        element.opcode == "get-tuple-element"
        and element.numbers("index") == (place,)
        and body.operand(element, 0).opcode == "parameter"
    )


class _Evaluator:
    """Values of a computation's instructions, from those of its parameters."""

    def __init__(self, module: Module, computation: Computation, given: tuple[Value, ...]):
        self._module, self._computation, self._given = module, computation, given
        self._found: dict[str, Value] = {}

    def value(self, name: str) -> Value:
        if name not in self._found:
            self._found[name] = self._evaluated(self._computation.instructions[name])
        return self._found[name]

    def _evaluated(self, each: Instruction) -> Value:
        if each.opcode == "constant":
            literal = {"true": "1", "false": "0"}.get(each.literal, each.literal)
            return int(literal) if re.fullmatch(r"-?\d+", literal) else None
        if each.opcode == "parameter":
            return self._given[int(each.literal)] if int(each.literal) < len(self._given) else None
        if each.opcode == "get-tuple-element":
            return self.element(self._computation.operand(each, 0), each.numbers("index")[0])
        if each.opcode == "tuple":
            return tuple(map(self.value, each.operands))
        if each.opcode in _ALIKE or each.opcode == "copy-start":
            return self.value(each.operands[0])
        if each.opcode == "fusion":
            fused = self._module.fused(each)
            given = tuple(map(self.value, each.operands))
            return _Evaluator(self._module, fused, given).value(fused.root.name)
        if each.opcode == "compare" or each.opcode in _ARITHMETIC:
            left, right = map(self.value, each.operands)
            if not isinstance(left, int) or not isinstance(right, int):
                return None
            if each.opcode == "compare":
                return int(_COMPARE[each.attribute("direction") or ""](left, right))
            return _ARITHMETIC[each.opcode](left, right)
        return None

    def element(self, of: Instruction, place: int) -> Value:
        """One element of a tuple, without the values of its others."""
        if of.opcode == "tuple":
            return self.value(of.operands[place])
        values = self.value(of.name)
        return values[place] if isinstance(values, tuple) else None
