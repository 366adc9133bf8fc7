"""Holds results.json of a demo run to what the demo promises; a promise that is broken fails.

python .ci/check_demo.py demo_run/results.json
"""

import json
import pathlib
import sys
from typing import Any

SEEN, BLIND, OPEN, MARGIN = 0.80, 0.45, 0.5, 0.15
SECONDS, MEMORY = 600, 4 << 30


def promises(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """(what was found and what was promised, whether it holds) for each promise."""
    heldout = results["heldout"]
    seen, blind, open_share = heldout["with_image"], heldout["blind"], heldout["open_share"]
    seconds, memory = sum(results["seconds"].values()), results["peak_memory_bytes"]
    above = {
        kind: row["with_image"] - row["blind"] for kind, row in sorted(heldout["by_kind"].items())
    }
    return [
        (f"with the picture {seen:.1%}, at least {SEEN:.0%}", seen >= SEEN),
        (f"blind {blind:.1%}, at most {BLIND:.0%}", blind <= BLIND),
        *(
            (f"{kind}: {points * 100:.1f} points above blind, at least 15", points >= MARGIN)
            for kind, points in above.items()
        ),
        (f"open questions {open_share:.1%}, at least {OPEN:.0%}", open_share >= OPEN),
        (f"{seconds:.0f} s, less than {SECONDS}", seconds < SECONDS),
        (f"{memory / 2**30:.2f} GiB at most, less than {MEMORY >> 30}", memory < MEMORY),
    ]


def main() -> int:
    """0 where every promise holds, else 1."""
    found = promises(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    for text, holds in found:
        print(f"{'ok     ' if holds else 'BROKEN '} {text}")
    return 0 if all(holds for _, holds in found) else 1


if __name__ == "__main__":
    sys.exit(main())
