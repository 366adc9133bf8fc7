"""A compiled step's memory: the compiler's own total, and what it is made of."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_pipeline.common.errors import UserError
from svit_jax.planning.hlo import Module
from svit_jax.planning.plan import Memory
from svit_jax.planning.temporaries import OTHERS

# The arguments of a program by how their names begin, as the compiler repeats them.
_ARGUMENTS = (
    ("parameters", "weights"),
    ("state.cache", "cache"),
    ("prompts", "prompts"),
    ("state.trained", "weights"),
    ("state.frozen", "weights"),
    ("state.optimizer", "optimizer"),
    ("batch", "batch"),
)
OTHER = "other arguments"
PROGRAM = "program"


class DoesNotFitError(UserError):
    """The compiler refuses a step that needs more memory than there is; `memory` is what it needs,
    as far as the compiler says it."""

    def __init__(self, text: str, memory: Memory | None):
        super().__init__(text)
        self.memory = memory


def plan_memory(compiled: Any, module: Module, capacity: int) -> Memory:
    """By JAX's figures: arguments + outputs - aliases + temporaries + the program. Outputs that
    take an argument's place (the new state the old one's) are aliases and count once."""
    found = compiled.memory_analysis()
    arguments = argument_bytes(module)
    parts = {
        **arguments,
        # What lies between arguments, so that each begins where a device wants it.
        "padding": found.argument_size_in_bytes - sum(arguments.values()),
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        OTHERS: found.temp_size_in_bytes,
        PROGRAM: found.generated_code_size_in_bytes,
    }
    return Memory(sum(parts.values()), capacity, {k: v for k, v in parts.items() if v})


def step_memory(
    module: Module, capacity: int, kinds: Mapping[str, int], code_bytes: int = 0
) -> Memory:
    """By what the TPU compiler wrote: arguments, whose places the new state takes, the block of
    temporaries, by `kinds`, and the program's code, where it was made. The compiler weighs the
    first two against the capacity."""
    parts = {**argument_bytes(module), **kinds, PROGRAM: code_bytes}
    return Memory(sum(parts.values()), capacity, {k: v for k, v in parts.items() if v})


def argument_bytes(module: Module) -> dict[str, int]:
    """Bytes of a device's shards of the program's arguments, by kind, as they lie in memory."""
    found: Counter[str] = Counter()
    for parameter in module.entry.parameters:
        kinds = (kind for start, kind in _ARGUMENTS if parameter.op_name.startswith(start))
        kind = next(kinds, OTHER)
        found[kind] += sum(shape.padded_bytes for shape in parameter.shapes)
    return dict(found)


def excess(message: str) -> tuple[str, str] | None:
    """What a program needs and what there is, from the compiler's refusal; None where it says
    something else."""
    for pattern in (
        r"Used (\S+) of (\S+) hbm",
        r"required for [^(]*\((\S+)\) exceeds available HBM \((\S+)\)",
    ):
        found = re.search(pattern, message)
        if found:
            return found[1].rstrip("."), found[2].rstrip(".")
    return None
