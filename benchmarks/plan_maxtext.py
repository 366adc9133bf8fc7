"""Our compiled training step beside MaxText's, and how many rows a chip it fits: 13B on v5e-256.

    pip install 'jax==0.12.*' libtpu==0.0.52                  # MaxText's, for a fair comparison
    nice -n 10 python benchmarks/plan_maxtext.py --out benchmarks/results

Everything is the compiler's own figure (`memory_analysis`), of a v5e:16x16 that need not be there.
"equal work" is MaxText's: Llama-2-13B alone (our tower is shrunk to nothing and gets no picture),
every chip a row of 2048 tokens, all weights and AdamW's moments in float32, gradients clipped,
nothing kept of a layer but its input. "svit" is SVIT-v1.5-13B: a picture in each row, its tower
frozen, decoder and projector trained. Rows a chip go up from there to what no longer fits.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from measuring import machine, record

CHIPS, TOPOLOGY = 256, "v5e:16x16"
MAXTEXT = {
    "arguments_gib": 0.57,
    "temporaries_gib": 2.55,
    "versions": {"jax": "0.12", "libtpu": "0.0.52"},
    "source": "maxtext from PyPI on Python 3.12: train_compile, model_name=llama2-13b, "
    "compile_topology=v5e-256, ici_fsdp_parallelism=256, per_device_batch_size=1, "
    "max_target_length=2048, remat_policy=full; compiled apart from this program",
    "tuned_rows": 6,
    "tuned_source": "AI-Hypercomputer/maxtext, benchmarks/maxtext_v5e_model_configs.py, "
    "llama2_13b_v5e_256: per_device_batch_size 6, max_target_length 2048, qkv_proj_offloaded",
}
WORK = (
    "data.plan=packed",
    "data.row_length=2048",
    "train.loss_groups=0",
    "optim.clip_norm=1.0",
    "optim.weight_decay=0.1",
)
TEXT = (
    *("data.pictures_per_row=0", "model.vision.layers=2", "model.vision.embed=256"),
    *("model.vision.heads=4", "model.vision.mlp=256"),
)
# Name: rows a chip, what a layer keeps, what else is changed.
STEPS: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "equal work": (1, "full", TEXT),
    "svit": (1, "full", ()),
    "equal work, 6 rows": (6, "attention", TEXT),
    "equal work, 12 rows": (12, "full", TEXT),
    "svit, 12 rows": (12, "full", ()),
    "svit, 13 rows": (13, "full", ()),
}
GIB = 2**30


def measure(overrides: list[str]) -> dict[str, Any]:
    """The compiler's figures of one step, or what it says that the step needs too much."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    import jax
    from jax.experimental import topologies

    from svit_jax.config import load_config, run_config
    from svit_jax.sharding.mesh import make_mesh
    from svit_jax.training.program import compile_run

    config = run_config(load_config("configs/svit_v1_5_13b_finetune.py", overrides), False)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    try:
        step = compile_run(config, 5000, make_mesh(config.mesh, devices))[2]
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"required for HLO temporaries \(([\d.]+)G\)", str(error))
        if not found:
            raise
        return {"fits": False, "needs_gib": float(found[1])}
    memory = step.memory_analysis()
    return {
        "fits": True,
        "arguments_gib": round(memory.argument_size_in_bytes / GIB, 3),
        "temporaries_gib": round(memory.temp_size_in_bytes / GIB, 3),
        "host_gib": round(memory.host_temp_size_in_bytes / GIB, 3),
        "peak_gib": round(memory.peak_memory_in_bytes / GIB, 3),
    }


def step_of(name: str) -> dict[str, Any]:
    """`measure` in a process of its own: a compiler that gives up may take its process along."""
    rows, remat, changed = STEPS[name]
    given = [
        *WORK,
        f"data.batch_size={rows * CHIPS}",
        f"model.compute.remat_decoder={remat}",
        *changed,
    ]
    command = [sys.executable, __file__, "--measure", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"rows": rows, "remat_decoder": remat, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for plan_maxtext.json")
    parser.add_argument("--measure", nargs="+", help="one step, in a process of its own")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    result: dict[str, Any] = {
        "command": "python benchmarks/plan_maxtext.py --out benchmarks/results",
        "topology": TOPOLOGY,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "libtpu")},
        "maxtext": MAXTEXT,
        "steps": {},
        "machine": machine(),
    }
    for name in STEPS:
        result["steps"][name] = step_of(name)
        print(name, json.dumps(result["steps"][name]), flush=True)
        record(result, given.out, "plan_maxtext")  # each takes minutes: kept as soon as it is there


if __name__ == "__main__":
    main()
