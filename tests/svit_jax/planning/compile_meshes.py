"""Compiles the training step on each mesh given as JSON, and prints its collectives as JSON.

A process of its own, since XLA's warnings go to its standard error.
"""

import json
import sys

import jax

from svit_jax.config import load_config, run_config
from svit_jax.planning.groups import count_collectives
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.program import compile_run


def main(spec: str, overrides: list[str], meshes: list[dict[str, int]]) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    config = run_config(load_config(spec, overrides), with_data=False)
    counts = []
    for sizes in meshes:
        print(f"mesh {sizes}", file=sys.stderr, flush=True)
        *_, step = compile_run(config, 10, make_mesh(MeshConfig(**sizes)))
        counts.append(count_collectives(step.as_text()))
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
