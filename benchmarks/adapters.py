"""What LoRA adapters beside a base cost: memory, and a step of decoding.

    nice -n 10 python benchmarks/adapters.py --out benchmarks/results

The wide model of batched_answers.py, random weights, float32, on this CPU. Adapters have LLaVA's
targets (all seven) and its share of the width: rank 128 of 4096 is 16 of 512. A step reads all
adapters, whichever its rows ask for, so rows that ask for none take as long. The engines take turns
for 16 steps at a time; programs are compiled before.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

from batched_answers import configs
from measuring import machine, record

ADAPTERS, ROWS = (0, 1, 4), (1, 8)
RANK, SLOTS, STEPS, REPEATS = 16, 256, 16, 9


def compare(config: Any) -> dict[str, Any]:
    import jax

    from svit_jax.inference.programs import Programs
    from svit_jax.models.lora import LoraConfig
    from svit_jax.models.parameters import flat_parameters
    from svit_jax.models.svit import Compute, abstract_model
    from svit_jax.sharding.mesh import MeshConfig, make_mesh
    from svit_jax.sharding.rules import Rules

    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    runs, sizes = {}, {}
    for count in ADAPTERS:
        structure = abstract_model(config, [LoraConfig(RANK, 2.0 * RANK)] * count)
        shapes = flat_parameters(structure)
        keys = jax.random.split(jax.random.key(0), len(shapes))
        parameters = {
            path: 0.02 * jax.random.normal(key, shape.shape)
            for key, (path, shape) in zip(keys, shapes.items(), strict=True)
        }
        sizes[count] = sum(array.nbytes for array in parameters.values())
        for rows in ROWS:
            programs = Programs(structure, Compute("float32"), mesh, Rules(), -1, rows)
            state = programs.idle(slots=SLOTS)
            state, _ = programs.steps(parameters, state, count=STEPS)
            runs[count, rows] = [programs, parameters, jax.block_until_ready(state)]
    seconds: dict[Any, list[float]] = {key: [] for key in runs}
    for _ in range(REPEATS):
        for key, (programs, parameters, state) in runs.items():
            start = time.perf_counter()
            state, _ = programs.steps(parameters, state, count=STEPS)
            runs[key][2] = jax.block_until_ready(state)
            seconds[key].append((time.perf_counter() - start) / STEPS)
    middle = {key: statistics.median(found) for key, found in seconds.items()}
    return {
        f"adapters_{count}": {
            "megabytes": round(sizes[count] / 1e6, 1),
            "megabytes_an_adapter": round((sizes[count] - sizes[0]) / max(count, 1) / 1e6, 2),
            **{
                f"rows_{rows}": {
                    "milliseconds": round(1000 * middle[count, rows], 3),
                    "fastest": round(1000 * min(seconds[count, rows]), 3),
                    "times_base": round(middle[count, rows] / middle[0, rows], 3),
                }
                for rows in ROWS
            },
        }
        for count in ADAPTERS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for adapters.json")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    load = os.getloadavg()[0]
    result: dict[str, Any] = {
        "rank": RANK,
        **compare(configs()["wide"]),
        "load_before": round(load, 2),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    record(result, given.out, "adapters")


if __name__ == "__main__":
    main()
