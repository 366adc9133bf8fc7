"""The collectives of a compiled program, counted in its text."""

import re
from collections import Counter

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# An instruction reads `%name = type kind(operands), ...`; what runs beside others is split into
# kind-start and kind-done, of which the first counts.
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = .*? ({'|'.join(KINDS)})(?:-start)?\(", re.M)


def count_collectives(text: str) -> dict[str, int]:
    """How many instructions of each kind stand in the text of a compiled program
    (`compiled.as_text()`). One in a loop's body, such as a scanned layer's, counts once."""
    found = Counter(_INSTRUCTION.findall(text))
    return {kind: found[kind] for kind in KINDS}
