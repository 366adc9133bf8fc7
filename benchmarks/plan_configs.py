"""What `svit plan` says of the configs that are meant for one machine: do they fit, and how long?

    pip install 'svit-jax[plan]'
    nice -n 10 python benchmarks/plan_configs.py --out benchmarks/results
    python benchmarks/plan_configs.py --out benchmarks/results --table      # what is there

Stage 2 as configs/ has it for a v5e-8, for one card and for eight. GPUs are simulated, and less
exact (docs/planning.md). Hours are for SVIT-mix-665K. Named ones alone are planned anew.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import machine, record

GIB = 2**30
DIALOGUES = 665_298
TOPOLOGIES = {
    "svit_v1_5_7b_lora.py:v5e8": "v5e:2x4",
    "svit_v1_5_7b_lora.py:gpu24": "rtx4090:1",
    "svit_v1_5_7b_lora.py:gpu1": "h100:1",
    "svit_v1_5_13b_lora.py:gpu1": "h100:1",
    "svit_v1_5_7b_lora.py:gpu8": "h100:8",
    "svit_v1_5_13b_lora.py:gpu8": "h100:8",
    "svit_v1_5_7b_finetune.py:gpu8": "h100:8",
    "svit_v1_5_13b_finetune.py:gpu8": "h100:8",
}


def planned(config: str) -> dict[str, Any]:
    command = ["plan", "--config", f"configs/{config}", "--topology", TOPOLOGIES[config]]
    done = subprocess.run(
        [sys.executable, "-m", "svit_jax.cli", *command, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    memory = said["memory"]
    found = {
        "command": " ".join(("svit", *command)),
        "fits": memory["total"] <= memory["capacity"] and not done.returncode,
        "memory": memory,
    }
    if done.returncode:
        return found | {"reason": said["reason"]}
    estimate, work = said["estimate"], said["work"]
    return found | {
        "mesh": said["mesh"],
        "rows_per_device": said["choices"]["rows_per_device"],
        "accumulate": work["accumulate"],
        "row_length": work["row_length"],
        "samples": work["samples"],
        "estimate": estimate,
        "hours": DIALOGUES / work["samples"] * estimate["seconds"] / 3600,
        "departures": said["departures"],
        "versions": said["versions"],
    }


def table(plans: dict[str, dict[str, Any]]) -> str:
    head = ("config", "planned for", "memory", "s a step", "tokens/s a device", "bound by", "hours")
    lines = [head, ("---",) * len(head)]
    for config in TOPOLOGIES:
        if config not in plans:
            continue
        plan = plans[config]
        total, capacity = (plan["memory"][key] / GIB for key in ("total", "capacity"))
        cells = [f"`{config}`", TOPOLOGIES[config], f"{total:.2f} of {capacity:.2f} GiB"]
        if "estimate" in plan:
            estimate = plan["estimate"]
            cells += [f"{estimate['seconds']:.1f}", f"{estimate['tokens_per_second']:,.0f}"]
            cells += [estimate["bound"], f"{plan['hours']:.0f}"]
        lines.append((*cells, *[""] * (len(head) - len(cells))))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("configs", nargs="*", help=f"of {', '.join(TOPOLOGIES)}; all by default")
    parser.add_argument("--out", help="folder of plan_configs.json")
    parser.add_argument("--table", action="store_true", help="plan nothing; show what is there")
    given = parser.parse_args()
    old = Path(given.out or ".") / "plan_configs.json"
    plans = json.loads(old.read_text())["plans"] if old.exists() else {}
    if given.table:
        print(table(plans))
        return
    for config in given.configs or TOPOLOGIES:
        plans[config] = planned(config)
        print(config, json.dumps(plans[config]), flush=True)
        result = {
            "command": "python benchmarks/plan_configs.py --out benchmarks/results",
            "plans": plans,
            **machine(),
        }
        record(result, given.out, "plan_configs")  # kept as soon as it is there


if __name__ == "__main__":
    main()
