"""Which slice for SVIT-v1.5-13B, and with which mesh: `svit plan` on TPUs of 16 to 1024 chips.

    python benchmarks/plan_slices.py --out benchmarks/results             # needs libtpu; hours
    python benchmarks/plan_slices.py --out benchmarks/results v5e-64      # some of them

Stage 2, in full and with LoRA, on packed rows of 4096 tokens. "recipe" is the paper's batch (32
rows, 128 samples a step) on every slice: chips beyond the rows split matrices over `tensor` (up to
8, for 13B has 40 heads), then rows over `sequence`. "rows" gives each chip a row of its own, so
that the batch grows with the slice and is no longer the paper's. The decoder keeps as much for the
backward pass as fits (the first of REMATS). On some slices other meshes are compared. What was
planned before is not planned again.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tpu_scripts.accelerators import PRICES

RESULTS = Path(__file__).resolve().parent / "results"
RECIPE_ROWS = 32
GIB = 2**30
PACKED = next(
    row
    for row in json.loads((RESULTS / "packing.json").read_text())["packed"]
    if (row["row_length"], row["pictures_per_row"]) == (4096, 5)
)
"""SVIT-mix-665K in rows of 4096 tokens and 5 pictures."""

FLAT = {16: "4x4", 64: "8x8", 256: "16x16"}
CUBES = {16: "2x2x4", 64: "4x4x4", 256: "4x8x8", 1024: "8x8x16"}
SHAPES = {"v5e": FLAT, "v6e": FLAT, "v4": CUBES, "v5p": CUBES}
"""The slices of each generation; beyond 256 chips of v5e and v6e there are several slices."""

CHIPS = (16, 64, 256, 1024)
CONFIGS = {"full": "finetune", "lora": "lora"}
REMATS = {
    "v4": ("attention", "full"),
    "v5e": ("attention", "full"),
    "v5p": ("dots", "attention", "full"),
    "v6e": ("attention", "full"),
}

# Chips along (fsdp, tensor, sequence), by chips; others than the first are for COMPARED.
RECIPE_MESHES = {
    16: ((16, 1, 1), (8, 2, 1)),
    64: ((32, 2, 1), (32, 1, 2), (16, 4, 1)),
    256: ((32, 8, 1), (32, 4, 2), (32, 2, 4)),
    1024: ((32, 8, 4), (32, 4, 8)),
}
ROW_MESHES = {256: ((256, 1, 1), (128, 2, 1)), 1024: ((1024, 1, 1), (512, 2, 1))}
COMPARED = ("v5e-64", "v5e-256", "v5p-64")
Mesh = tuple[int, int, int]


def topology(generation: str, chips: int) -> tuple[str, int]:
    """The name of a slice, or of several, and how many they are."""
    shapes = SHAPES[generation]
    if chips in shapes:
        return f"{generation}:{shapes[chips]}", 1
    largest = max(shapes)
    slices = chips // largest
    return f"{slices}x{generation}:{shapes[largest]}", slices


def plan(
    generation: str, chips: int, mode: str, batch: str, mesh: Mesh, remat: str
) -> dict[str, Any]:
    """What `svit plan` says of one step, as the sweep's JSON has it, and its hours."""
    name, slices = topology(generation, chips)
    fsdp, tensor, sequence = mesh
    sizes = {"replica": slices, "fsdp": fsdp // slices, "tensor": tensor, "sequence": sequence}
    batch_size = RECIPE_ROWS if batch == "recipe" else fsdp
    command = [
        *(sys.executable, "-m", "svit_jax.cli", "plan", "--sweep", "--json", "--jobs", "1"),
        *("--config", f"configs/svit_v1_5_13b_{CONFIGS[mode]}.py:packed", "--topology", name),
        *("--meshes", *(f"{axis}={size}" for axis, size in sizes.items())),
        *("--rows", "1", "--remat", remat, f"--data.batch_size={batch_size}"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)["candidates"][0]
    estimate = found["plan"] and found["plan"]["estimate"]
    kept = {"chips": chips, "batch": batch, **found, "plan": None}
    if found["plan"]:
        steps = PACKED["rows"] / batch_size
        kept |= {
            "epoch_hours": steps * estimate["seconds"] / 3600,
            "chip_hours": steps * estimate["seconds"] / 3600 * chips,
            "seconds_exposed": estimate["exposed"],
            "versions": found["plan"]["versions"],
        }
    del kept["plan"]
    return kept


def speed(found: dict[str, Any]) -> float:
    return found["tokens_per_second"] if found["status"] == "fits" else 0.0


def plans_of(name: str, mode: str, batch: str) -> Iterator[dict[str, Any]]:
    """Of each mesh, the plans up to the first that fits; with LoRA of the first mesh alone."""
    generation, chips = name.split("-")[0], int(name.split("-")[1])
    meshes = (RECIPE_MESHES if batch == "recipe" else ROW_MESHES).get(chips, ())
    compared = name in COMPARED and mode == "full"
    for mesh in meshes if compared else meshes[:1]:
        for remat in REMATS[generation]:
            found = plan(generation, chips, mode, batch, mesh, remat)
            yield {"slice": name, **found, "mode": mode}
            if speed(found):
                break


def table(plans: list[dict[str, Any]]) -> str:
    """The fastest that fits of each slice, mode and batch, as the docs show it (Markdown)."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for each in plans:
        groups.setdefault((each["batch"], each["mode"], each["slice"]), []).append(each)
    head = (
        *("slice", "training", "samples a step", "mesh", "remat", "GiB a chip", "s a step"),
        *("tokens/s a chip", "MFU", "bound by", "hours", "dollars"),
    )
    lines = [head, ("---",) * len(head)]
    order = {name: place for place, name in enumerate(SHAPES)}
    for (_, mode, name), found in sorted(
        groups.items(),
        key=lambda item: (
            item[0][0],
            item[0][1],
            order[item[0][2].split("-")[0]],
            item[1][0]["chips"],
        ),
    ):
        best = max(found, key=speed)
        if not speed(best):
            least = min(found, key=lambda each: each.get("memory_total", math.inf))
            why = (
                f"{least['memory_total'] / GIB:.1f} GiB needed"
                if "memory_total" in least
                else "too large"
            )
            lines.append((name, mode, "132", "", "", why, *[""] * 6))
            continue
        axes = ("replica", "fsdp", "tensor", "sequence")
        mesh = " ".join(f"{axis} {best[axis]}" for axis in axes if best[axis] > 1)
        dollars = best["chip_hours"] * PRICES[name.split("-")[0]]
        lines.append(
            (
                *(name, mode, f"{best['samples']:.0f}", mesh, best["remat_decoder"]),
                f"{best['memory_total'] / GIB:.1f}",
                f"{best['seconds']:.2f}",
                f"{best['tokens_per_second']:,.0f}",
                f"{best['mfu']:.0%}",
                best["bound"],
                f"{best['epoch_hours']:.1f}",
                f"{dollars:,.0f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slices", nargs="*", help="such as v5e-64 (default: all)")
    parser.add_argument("--modes", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--out", help="folder of plan_slices.json")
    parser.add_argument("--table", action="store_true", help="plan nothing; show what is there")
    given = parser.parse_args()
    slices = given.slices or [f"{name}-{chips}" for chips in CHIPS for name in SHAPES]
    old = Path(given.out or ".") / "plan_slices.json"
    plans = json.loads(old.read_text())["plans"] if old.exists() else []
    if given.table:
        print(table(plans))
        return
    done = {(each["slice"], each["mode"], each["batch"]) for each in plans}
    for batch, name, mode in itertools.product(("recipe", "rows"), slices, given.modes):
        if (name, mode, batch) in done:
            continue
        for found in plans_of(name, mode, batch):
            plans.append(found)
            print(name, mode, batch, json.dumps(found), flush=True)
        result = {
            "command": "python benchmarks/plan_slices.py --out benchmarks/results",
            "rows": PACKED["rows"],
            "plans": plans,
            **machine(),
        }
        record(result, given.out, "plan_slices")


if __name__ == "__main__":
    main()
