"""Which slice for SVIT-v1.5, and with which mesh: `svit plan` on TPUs of 16 to 1024 chips.

    python benchmarks/plan_slices.py --out benchmarks/results                  # needs libtpu; hours
    python benchmarks/plan_slices.py --out benchmarks/results v5e-64 --models 7b    # some of them
    python benchmarks/plan_slices.py --out benchmarks/results --table          # what is there

Stage 2 of 7B and 13B, in full and with LoRA, on packed rows of 4096 tokens. "recipe" is the
paper's batch (32 rows, about 132 samples a step) on every slice: chips beyond the rows split rows
over `sequence` and matrices over `tensor`. "rows" gives each chip a row of its own, so that the
batch grows with the slice and is no longer the paper's. The decoder keeps as much for the backward
pass as fits (the first of `remats`). On some slices other meshes are compared. What was planned
before is not planned again.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from svit_jax.planner import plan_config
from svit_jax.planning.memory import DoesNotFitError
from tpu_scripts.accelerators import PRICES

RECIPE_ROWS = 32
GIB = 2**30
PACKED = next(
    row
    for row in json.loads((ROOT / "benchmarks/results/packing.json").read_text())["packed"]
    if (row["row_length"], row["pictures_per_row"]) == (4096, 5)
)
"""SVIT-mix-665K in rows of 4096 tokens and 5 pictures."""

FLAT = {16: "4x4", 32: "4x8", 64: "8x8", 256: "16x16"}
CUBES = {16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 256: "4x8x8", 1024: "8x8x16"}
SHAPES = {"v5e": FLAT, "v6e": FLAT, "v4": CUBES, "v5p": CUBES}
"""The slices of each generation; beyond 256 chips of v5e and v6e there are several slices."""

CHIPS = (16, 32, 64, 256, 1024)
SLICES = [f"{name}-{chips}" for chips in CHIPS for name in SHAPES]
MODELS = ("7b", "13b")
CONFIGS = {"full": "finetune", "lora": "lora"}
BATCHES = ("recipe", "rows")

# Chips along (fsdp, tensor, sequence), by chips; others than the first are for COMPARED.
Mesh = tuple[int, int, int]
MESHES: dict[str, dict[int, tuple[Mesh, ...]]] = {
    "recipe": {
        16: ((16, 1, 1),),
        32: ((32, 1, 1),),
        64: ((32, 1, 2), (32, 2, 1)),
        256: ((32, 4, 2), (32, 2, 4), (32, 1, 8), (32, 8, 1)),
        1024: ((32, 4, 8),),
    },
    "rows": {256: ((256, 1, 1),), 1024: ((1024, 1, 1),)},
}
WINDOWED = {
    **{(f"{name}-16", mode): "" for name in ("v4", "v5e", "v5p") for mode in CONFIGS},
    ("v6e-16", "full"): "xla_tpu_scoped_vmem_limit_kib=98304",
}
"""Where libtpu's default, products that go on while their weights arrive, is kept: the options
beside it. Elsewhere the configs' words turn it off."""

COMPARED = tuple((name, "13b", "full") for name in ("v5e-64", "v5e-256", "v5p-64"))
"""`sequence` 2 came out best of these, with `tensor` 4 beside it on 256 chips."""
Found = dict[str, Any]


def split(name: str) -> tuple[str, int]:
    generation, _, chips = name.partition("-")
    return generation, int(chips)


def remats(name: str, model: str, mode: str) -> tuple[str, ...]:
    """What the decoder may keep, most first; without what is far from fitting."""
    generation, chips = split(name)
    far = {
        "v5e": chips <= 32 or (chips == 64 and (model, mode) == ("13b", "lora")),
        "v4": chips == 16 and model == "13b",
        "v6e": chips == 16 and model == "13b",
        "v5p": False,
    }
    return ("attention", "full") if far[generation] else ("dots", "attention", "full")


def topology(name: str) -> tuple[str, int]:
    """As `svit plan` names a slice, or several, and how many they are."""
    generation, chips = split(name)
    shapes = SHAPES[generation]
    largest = max(shapes)
    slices = max(1, chips // largest)
    prefix = f"{slices}x" if slices > 1 else ""
    return f"{prefix}{generation}:{shapes[min(chips, largest)]}", slices


def plan(name: str, model: str, mode: str, batch: str, mesh: Mesh, remat: str) -> Found:
    """What `svit plan` says of one step, and its hours for the mixture."""
    place, slices = topology(name)
    fsdp, tensor, sequence = mesh
    rows = RECIPE_ROWS if batch == "recipe" else fsdp
    sizes = {"replica": slices, "fsdp": fsdp // slices, "tensor": tensor, "sequence": sequence}
    kept = WINDOWED.get((name, mode))
    word = "packed" if (name, mode) in WINDOWED else name.partition("-")[0]
    config = f"configs/svit_v1_5_{model}_{CONFIGS[mode]}.py:{word}"
    settings = (
        *(f"mesh.{axis}={size}" for axis, size in sizes.items()),
        f"data.batch_size={rows}",
        f"train.accumulate={rows // fsdp}",
        f"model.compute.remat_decoder={remat}",
        *([f"train.compiler_options={kept}"] if kept else []),
    )
    found: Found = {"slice": name, "model": model, "mode": mode, "batch": batch}
    found |= {"mesh": list(mesh), "remat": remat}
    command = ["svit", "plan", "--config", config, "--topology", place]
    found["command"] = " ".join((*command, *(f"--{setting}" for setting in settings)))
    try:
        made = plan_config(str(ROOT / config), settings, place)
    except DoesNotFitError as error:
        needed = error.memory and {"total": error.memory.total, **error.memory.parts}
        return found | {"fits": False, "reason": str(error), "memory": needed}
    estimate = made.estimate
    return found | {
        "fits": True,
        "samples": made.work["samples"],
        "memory": {"total": made.memory.total, **made.memory.parts},
        "seconds": estimate.seconds,
        "limits": dict(estimate.limits),
        "exposed": estimate.exposed,
        "bound": estimate.bound,
        "tokens_per_second": estimate.tokens_per_second,
        "mfu": estimate.mfu,
        "epoch_hours": PACKED["rows"] / rows * estimate.seconds / 3600,
        "compile_seconds": made.compile_seconds,
        "versions": dict(made.versions),
    }


def identity(found: Found) -> tuple[Any, ...]:
    keys = ("slice", "model", "mode", "batch", "remat")
    return *(found[key] for key in keys), tuple(found["mesh"])


def plans_of(known: Iterable[Found], *which: str) -> Iterator[Found]:
    """Of each mesh of (slice, model, mode, batch), the plans up to the first that fits."""
    name, model, mode, batch = which
    planned = {identity(each): each for each in known}
    meshes = MESHES[batch].get(split(name)[1], ())
    for mesh in meshes if (name, model, mode) in COMPARED else meshes[:1]:
        for remat in remats(name, model, mode):
            found = planned.get((*which, remat, mesh))
            if found is None:
                found = plan(*which, mesh, remat)
                yield found
            if found["fits"]:
                break


def best(plans: Iterable[Found]) -> Found | None:
    fitting = [each for each in plans if each["fits"]]
    return max(fitting, key=lambda each: each["tokens_per_second"], default=None)


def dollars(found: Found) -> float:
    generation, chips = split(found["slice"])
    return found["epoch_hours"] * chips * PRICES[generation]


def mesh_text(found: Found) -> str:
    sizes = zip(("fsdp", "tensor", "sequence"), found["mesh"], strict=True)
    return ", ".join(f"{axis} {size}" for axis, size in sizes if size > 1)


def groups(plans: list[Found], batch: str) -> dict[tuple[str, str, str], list[Found]]:
    """The plans by (model, mode, slice), in the order of a table."""
    found: dict[tuple[str, str, str], list[Found]] = {}
    for key in itertools.product(MODELS, CONFIGS, SLICES):
        chosen = (
            each
            for each in plans
            if (each["model"], each["mode"], each["slice"]) == key and each["batch"] == batch
        )
        found[key] = list(chosen)
    return {key: each for key, each in found.items() if each}


def table(plans: list[Found], batch: str) -> str:
    """The fastest that fits of each slice, model and mode, as the docs show it (Markdown)."""
    head = (
        *("model", "slice", "mesh", "remat", "GiB a chip", "s a step", "tokens/s a chip"),
        *("MFU", "bound by", "hours", "dollars"),
    )
    lines = [head, ("---",) * len(head)]
    for (model, mode, name), found in groups(plans, batch).items():
        who = f"{model.upper()} {'LoRA' if mode == 'lora' else mode}"
        one = best(found)
        if one is None:
            least = found[-1]["reason"].partition("compiler needs ")[2].partition(" a device")[0]
            what = f"does not fit: {least.replace('G', ' GiB')}"
            lines.append((who, name, mesh_text(found[-1]), found[-1]["remat"], what, *[""] * 6))
            continue
        lines.append(
            (
                *(who, name, mesh_text(one), one["remat"]),
                f"{one['memory']['total'] / GIB:.1f}",
                f"{one['seconds']:.2f}",
                f"{one['tokens_per_second']:,.0f}",
                f"{one['mfu']:.0%}",
                one["bound"],
                f"{one['epoch_hours']:.1f}",
                f"{dollars(one):,.0f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def costs(plans: list[Found]) -> str:
    """Hours and dollars, a line a slice, a column for each model and mode (Markdown)."""
    found = groups(plans, "recipe")
    columns = list(itertools.product(MODELS, CONFIGS))
    head = [f"{model.upper()}, {'LoRA' if mode == 'lora' else mode}" for model, mode in columns]
    lines = [["slice", *head], ["---"] * (1 + len(head))]
    names = {name for _, _, name in found}
    for name in (each for each in SLICES if each in names):
        cells = []
        for column in columns:
            planned = found.get((*column, name), [])
            one = best(planned)
            if one:
                cells.append(f"{one['epoch_hours']:.1f} h, ${dollars(one):,.0f}")
            else:
                cells.append("does not fit" if planned else "not planned")
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slices", nargs="*", help="such as v5e-64 (default: all)")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--modes", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--batches", nargs="+", default=BATCHES, choices=BATCHES)
    parser.add_argument("--out", help="folder of plan_slices.json")
    parser.add_argument("--table", action="store_true", help="plan nothing; show what is there")
    given = parser.parse_args()
    slices = given.slices or SLICES
    old = Path(given.out or ".") / "plan_slices.json"
    plans = json.loads(old.read_text())["plans"] if old.exists() else []
    if given.table:
        print(costs(plans))
        for batch in BATCHES:
            print(f"\n{batch}:\n\n{table(plans, batch)}")
        return
    for batch, name, model, mode in itertools.product(
        given.batches, slices, given.models, given.modes
    ):
        for found in plans_of(tuple(plans), name, model, mode, batch):
            plans.append(found)
            print(json.dumps(found), flush=True)
            result = {
                "command": "python benchmarks/plan_slices.py --out benchmarks/results",
                "rows": PACKED["rows"],
                "plans": plans,
                **machine(),
            }
            record(result, given.out, "plan_slices")  # each takes minutes: kept once it is there


if __name__ == "__main__":
    main()
