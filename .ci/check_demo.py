"""Holds results.json of a demo run to what the demo promises, and to what it has reached before.

python .ci/check_demo.py demo_run/results.json

A promise that is broken fails. The goals are what the demo is being tuned for: until they are
reached, each is reported, and what was reached last is the floor that a change may not fall below.
"""

import json
import pathlib
import sys
from typing import Any

BLIND, OPEN = 0.45, 0.5
SECONDS, MEMORY = 600, 4 << 30
GOAL_SEEN, GOAL_MARGIN = 0.80, 0.15
FLOOR_SEEN = 0.55


def promises(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """(what was found and what was promised, whether it holds) for each promise."""
    heldout = results["heldout"]
    seen, blind, open_share = heldout["with_image"], heldout["blind"], heldout["open_share"]
    seconds, memory = sum(results["seconds"].values()), results["peak_memory_bytes"]
    return [
        (f"with the picture {seen:.1%}, at least {FLOOR_SEEN:.0%}", seen >= FLOOR_SEEN),
        (f"blind {blind:.1%}, at most {BLIND:.0%}", blind <= BLIND),
        (f"open questions {open_share:.1%}, at least {OPEN:.0%}", open_share >= OPEN),
        (f"{seconds:.0f} s, less than {SECONDS}", seconds < SECONDS),
        (f"{memory / 2**30:.2f} GiB at most, less than {MEMORY >> 30}", memory < MEMORY),
    ]


def goals(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """(what was found and what is aimed at, whether it is reached) for each goal."""
    heldout = results["heldout"]
    seen = heldout["with_image"]
    found = [(f"with the picture {seen:.1%}, at least {GOAL_SEEN:.0%}", seen >= GOAL_SEEN)]
    for kind, row in sorted(heldout["by_kind"].items()):
        above = row["with_image"] - row["blind"]
        found.append(
            (f"{kind}: {above * 100:.1f} points above blind, at least 15", above >= GOAL_MARGIN)
        )
    return found


def main() -> int:
    """0 where every promise holds, else 1."""
    results = json.loads(pathlib.Path(sys.argv[1]).read_text())
    kept, reached = promises(results), goals(results)
    for text, holds in kept:
        print(f"{'ok     ' if holds else 'BROKEN '} {text}")
    for text, holds in reached:
        print(f"{'reached' if holds else 'NOT YET'} goal: {text}")
    return 0 if all(holds for _, holds in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
