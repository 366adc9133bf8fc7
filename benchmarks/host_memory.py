"""A toy training step on the CPU, with the C library's heap kept and as it was.

    python benchmarks/host_memory.py

Each measurement is a process of its own, the two kinds in turn; the figure is the ratio of medians.
"""

import resource
import statistics
import subprocess
import sys
import time

REPEATS, WARM_UP, STEPS = 3, 5, 60


def measure(kept: bool) -> None:
    """Prints milliseconds a step, and milliseconds of it spent in the kernel (both cores)."""
    from svit_jax.host_memory import keep_freed_memory

    if kept:
        keep_freed_memory()
    import jax
    import numpy as np

    from data_pipeline.loading.batch import Batch
    from svit_jax.batch import batch_shapes
    from svit_jax.config import load_config, run_config
    from svit_jax.sharding.mesh import make_mesh
    from svit_jax.training.program import compile_run
    from svit_jax.training.start import initial_state

    config = run_config(
        load_config("configs/toy.py:finetune", ["data.train=none", "data.tokenizer=none"])
    )
    plan, placement, step = compile_run(config, WARM_UP + STEPS, make_mesh(config.mesh))
    data, vision = config.data, config.model.vision
    shapes = batch_shapes(
        data.batch_size, data.row_length, data.pictures_per_row, vision.image_size
    )
    rows = {name: np.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    rows["segment_ids"] += 1
    rows["loss_weights"][:, 1::6] = 1
    batch = placement.put(Batch(**rows))
    state = initial_state(config, plan)
    start = before = 0.0
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            jax.block_until_ready(state)
            start, before = time.perf_counter(), system_seconds()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds, system = time.perf_counter() - start, system_seconds() - before
    print(1e3 * seconds / STEPS, 1e3 * system / STEPS)


def system_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


def main() -> None:
    rows: dict[str, list[tuple[float, float]]] = {"as it was": [], "kept": []}
    for _ in range(REPEATS):
        for mode, found in rows.items():
            command = [sys.executable, __file__, mode]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            step, system = map(float, done.stdout.split())
            found.append((step, system))
    medians = {}
    for mode, found in rows.items():
        medians[mode], system = (statistics.median(column) for column in zip(*found, strict=True))
        steps = ", ".join(f"{step:.1f}" for step, _ in found)
        print(
            f"{mode:<10} {medians[mode]:6.1f} ms a step ({steps}), {system:5.1f} ms in the kernel"
        )
    print(f"ratio      {medians['as it was'] / medians['kept']:6.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1] == "kept")
    else:
        main()
