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
UNASSIGNED = "unassigned temporaries"
"""What JAX's figure of temporaries has beside the block that they are assigned to."""


class DoesNotFitError(UserError):
    """The compiler refuses a step that needs more memory than there is; `memory` is what it needs,
    as far as the compiler says it."""

    def __init__(self, text: str, memory: Memory | None):
        super().__init__(text)
        self.memory = memory


def plan_memory(
    compiled: Any, module: Module, capacity: int, kinds: Mapping[str, int] | None = None
) -> Memory:
    """Arguments + outputs - aliases + temporaries + the program. Outputs that take an argument's
    place (the new state the old one's) are aliases and count once. `kinds` are those temporaries
    of which it is known what they are."""
    found = compiled.memory_analysis()
    arguments, kinds = argument_bytes(module), kinds or {}
    parts = {
        **arguments,
        # What lies between arguments, so that each begins where a device wants it.
        "padding": found.argument_size_in_bytes - sum(arguments.values()),
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        **kinds,
        (UNASSIGNED if kinds else OTHERS): found.temp_size_in_bytes - sum(kinds.values()),
        "program": found.generated_code_size_in_bytes,
    }
    return Memory(sum(parts.values()), capacity, {k: v for k, v in parts.items() if v})


def refused_memory(module: Module, capacity: int, kinds: Mapping[str, int]) -> Memory:
    """What a refused program needs: its arguments and its block of temporaries."""
    parts = {**argument_bytes(module), **kinds}
    return Memory(sum(parts.values()), capacity, parts)


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
