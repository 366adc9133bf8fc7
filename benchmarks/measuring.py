"""What the benchmarks measure of a process of its own, and where they record it."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_USED = (
    "\nimport resource\n"
    "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
    "print(max(u.ru_maxrss for u in used), sum(u.ru_utime + u.ru_stime for u in used))\n"
)
_SVIT = "import sys\nfrom svit_jax.cli import main\nassert main(sys.argv[1:]) == 0"


def measured(code: str, *arguments: str) -> tuple[dict[str, float], list[str]]:
    """What a program took, and the lines that it printed: seconds by the clock and on a core, and
    the largest resident memory of the process or of a child of it."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code + _USED, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    *printed, used = [line for line in done.stdout.splitlines() if line.strip()]
    kilobytes, core_seconds = used.split()
    took = {
        "seconds": round(seconds, 1),
        "core_seconds": round(float(core_seconds), 1),
        "peak_gib": round(int(kilobytes) / 2**20, 2),
    }
    return took, printed


def svit(*arguments: str) -> tuple[dict[str, float], Any]:
    """What one `svit` command took, and its answer (--json)."""
    took, printed = measured(_SVIT, *arguments, "--json")
    return took, json.loads(printed[-1])


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def record(result: dict[str, Any], folder: str | None, name: str) -> None:
    """Writes `folder`/`name`.json, where a folder is given."""
    if folder:
        path = Path(folder) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
