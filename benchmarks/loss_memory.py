"""Memory and time of a training step with our loss, which unembeds targets alone, a chunk at a
time, and with plain cross entropy of all logits at once.

    nice -n 10 python benchmarks/loss_memory.py --out benchmarks/results

Memory is what XLA plans for the step (`memory_analysis`, compiled for this CPU, not run): LoRA on
one layer of the 7B decoder, its width and vocabulary, 32 text rows of 256 tokens. (Of longer rows
the largest thing on a CPU is attention's scores, which a TPU's kernel never has.) Time is of the
toy model with the 7B's vocabulary, every sixth token a target; the two in turn, each run a process
of its own, ratio of medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from measuring import machine, record

KINDS = ("chunks of targets", "all logits at once")
REPEATS, WARM_UP, STEPS = 3, 2, 10
DATA = ("data.train=none", "data.tokenizer=none", "train.loss_groups=0")
MEMORY = (
    *DATA,
    "data.plan=packed",
    "data.batch_size=32",
    "data.row_length=256",
    "data.pictures_per_row=0",
    "train.loss_chunk=32",
    "model.decoder.layers=1",
    "train.compilation_cache=",
)
TIME = (*DATA, "model.decoder.vocab=32000")


def use_all_logits() -> None:
    """Puts plain cross entropy of [B, T, V] logits in place of the step's own."""
    import jax.numpy as jnp
    import optax

    from svit_jax.training import objective

    def sums(model: Any, hidden: Any, tokens: Any, loss_weights: Any, chunk: int) -> Any:
        targets, weights = (jnp.roll(x, -1, axis=1) for x in (tokens, loss_weights))
        logits = model.decoder.unembed(hidden)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        hits = (logits.argmax(-1) == targets) & (weights > 0)
        return objective.Sums((losses * weights).sum(), weights.sum(), 1.0 * hits.sum())

    objective.token_sums = sums


def measure(what: str, kind: str) -> None:
    """Prints the step's temporary bytes, or its milliseconds."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if kind == KINDS[1]:
        use_all_logits()
    import jax

    from data_pipeline.loading.batch import Batch
    from svit_jax.config import load_config, run_config
    from svit_jax.sharding.mesh import MeshConfig, make_mesh
    from svit_jax.training.program import compile_run
    from svit_jax.training.start import initial_state

    spec, overrides = ("toy.py:finetune", TIME)
    if what == "memory":
        spec, overrides = ("svit_v1_5_7b_lora.py", MEMORY)
    config = run_config(load_config(f"configs/{spec}", overrides))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    plan, placement, step = compile_run(config, WARM_UP + STEPS, mesh)
    if what == "memory":
        print(step.memory_analysis().temp_size_in_bytes)
        return
    rows = {name: np.zeros(shape.shape, shape.dtype) for name, shape in placement.shapes.items()}
    rows["segment_ids"] += 1
    rows["loss_weights"][:, 1::6] = 1
    batch = placement.put(Batch(**rows))
    state, start = initial_state(config, plan), 0.0
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    print(1e3 * (time.perf_counter() - start) / STEPS)


def in_a_process(what: str, kind: str) -> float:
    command = [sys.executable, __file__, "--measure", what, "--kind", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for loss_memory.json")
    parser.add_argument("--measure", choices=("memory", "time"), help="in a process of its own")
    parser.add_argument("--kind", choices=KINDS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.kind)
        return
    gib = {kind: round(in_a_process("memory", kind) / 2**30, 2) for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(REPEATS):
        for kind, found in times.items():
            found.append(round(in_a_process("time", kind), 1))
    medians = [statistics.median(found) for found in times.values()]
    result = {
        "temporary_gib": gib,
        "milliseconds": times,
        "gib_saved": round(gib[KINDS[1]] - gib[KINDS[0]], 2),
        "time_ratio": round(medians[1] / medians[0], 2),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    record(result, given.out, "loss_memory")


if __name__ == "__main__":
    main()
