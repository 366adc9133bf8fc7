"""What a training step's temporaries are when most of them are there, by kind.

docs/planning.md, "Temporaries by kind", has the rules in words.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from svit_jax.planning.buffers import Assignment, Buffer
from svit_jax.planning.hlo import Module
from svit_jax.planning.origins import Origins

GRADIENTS, ACTIVATIONS, COPIES = "gradients", "activations", "copies of weights"
OTHERS = "temporaries"
_WEIGHTS = ("state.trained", "state.frozen")
_BACKWARD, _FORWARD = "transpose(", "jvp("


def temporary_parts(
    assignment: Assignment, module: Module, parameters: Iterable[tuple[int, ...]]
) -> dict[str, int]:
    """The bytes of the temporaries' block: gradients, activations that are kept for the backward
    pass, and copies of weights (gathered, converted), at the peak, and all the rest.

    `parameters` are the numbers of elements that the trained parameters' arrays may have
    (`parameter_sizes`)."""
    sizes = {size for each in parameters for size in each}
    origins = Origins(module)
    turn = _turn(assignment, module)
    lives = _lives(assignment.buffers, origins)
    found: Counter[str] = Counter()
    for buffer, held in assignment.peak():
        maker = origins.maker(buffer.name, buffer.index)
        if maker is None:
            continue
        source = origins.copied(buffer.name, buffer.index)
        first, last = lives[_key(buffer, maker.name)]
        backward = _BACKWARD in maker.op_name or buffer.dtype == "f32"
        if source is not None and source.op_name.startswith(_WEIGHTS):
            found[COPIES] += held
        elif buffer.elements in sizes and backward:
            found[GRADIENTS] += held
        elif first < turn <= last:
            found[ACTIVATIONS] += held
    return {**found, OTHERS: assignment.block - found.total()}


def parameter_sizes(whole: tuple[int, ...], shard: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of elements of a parameter, each axis whole or a device's, and of one of its
    layers, which the first axis counts."""
    axes = [sorted({a, b}) for a, b in zip(whole, shard, strict=True)]
    return tuple(
        {math.prod(sizes[start:]) for sizes in itertools.product(*axes) for start in (0, 1)}
    )


def _turn(assignment: Assignment, module: Module) -> float:
    """The place in the schedule where the backward pass begins: it parts the instructions that are
    the forward pass's by their names from the backward pass's with the fewest on the wrong side,
    for the compiler moves some. Infinity where there is no backward pass."""
    names = {
        each.name: each.op_name
        for computation in module.computations.values()
        for each in computation.instructions.values()
    }
    steps: Counter[int] = Counter()
    for name, place in assignment.places.items():
        steps[place] += _direction(names.get(name, ""))
    if not any(step > 0 for step in steps.values()):
        return math.inf
    # The forward pass counts -1 an instruction, so the sum before the turn is the least of all.
    places = sorted(steps)
    sums = list(itertools.accumulate(steps[place] for place in places))
    return float(places[min(range(len(places)), key=sums.__getitem__)] + 1)


def _direction(op_name: str) -> int:
    """-1 for the forward pass, 1 for the backward, by the outermost of JAX's transformations: the
    loss makes gradients within the forward pass."""
    forward, backward = op_name.find(_FORWARD), op_name.find(_BACKWARD)
    if backward >= 0 and (forward < 0 or backward < forward):
        return 1
    return -1 if forward >= 0 else 0


def _lives(buffers: Iterable[Buffer], origins: Origins) -> Mapping[tuple, tuple[int, int]]:
    """From when to when an array is there, whichever names it has: what a loop fills is another
    value before, in and after it, in the same bytes."""
    found: dict[tuple, tuple[int, int]] = {}
    for buffer in buffers:
        maker = origins.maker(buffer.name, buffer.index)
        if maker is not None:
            key = _key(buffer, maker.name)
            first, last = found.get(key, (buffer.first, buffer.last))
            found[key] = min(first, buffer.first), max(last, buffer.last)
    return found


def _key(buffer: Buffer, maker: str) -> tuple:
    return maker, buffer.offset, buffer.size
