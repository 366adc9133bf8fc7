"""What one process of a job does in test_several_hosts.py: python one_host.py WORKDIR CONFIG KEY...

Writes what it saw to WORKDIR/N.json, and its shards of the first batches to WORKDIR/N.npz.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.batch import Batch
from data_pipeline.loading.pipeline import Loaded
from svit_jax import distributed
from svit_jax.batch import LOGICAL, BatchPlacement, batch_shapes
from svit_jax.config import load_config, run_config
from svit_jax.sharding.mesh import make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.inputs import Inputs
from svit_jax.training.news import News
from svit_jax.training.preemption import Preemption

STEPS = 3


def shards(workdir: Path, spec: str, overrides: list[str]) -> dict[str, np.ndarray]:
    """Name, step and place of each shard that lies on this host -> its values."""
    config = run_config(load_config(spec, overrides))
    inputs = Inputs.open(config, workdir, keep_plan=False)
    data, size = config.data, config.model.vision.image_size
    shapes = batch_shapes(data.batch_size, data.row_length, data.pictures_per_row, size)
    placement = BatchPlacement(make_mesh(config.mesh), Rules(), shapes)
    found = {"rows": np.array(placement.local_rows)}
    for loaded in inputs.loader(config, placement.local_rows, 0, STEPS):
        batch = placement.put(loaded.batch)
        for name in LOGICAL:
            for shard in getattr(batch, name).addressable_shards:
                edges = [range(n)[i] for n, i in zip(shapes[name].shape, shard.index, strict=True)]
                place = "/".join(f"{edge.start}:{edge.stop}" for edge in edges)
                found[f"{name} {loaded.step} {place}"] = np.asarray(shard.data)
    return found


def failure_of_the_first() -> str:
    def fail() -> None:
        raise UserError("the first can't")

    try:
        distributed.by_first("failing", fail)
    except UserError as error:
        return str(error)
    return ""


def bad_records(workdir: Path, process: int) -> tuple[list[dict[str, object]], str, list[bool]]:
    """Step 0: each process meets a record of its own and a shared one. Step 1: the last one gets
    SIGTERM. Step 2: nothing. Step 3: one record too many, in the first."""
    empty = Batch(*(np.zeros((1, 1), np.int32) for _ in range(4)), *[None] * 2)  # type: ignore
    last = process == jax.process_count() - 1
    met = {0: ("shared", f"own {process}"), 3: ("too many",) if process == 0 else ()}
    stops, text = [], ""
    with Preemption() as preemption:
        preemption.defer()
        bad = Quarantine(workdir / "bad.jsonl")
        news = News(bad, jax.process_count() + 1, preemption)
        for step in range(4):
            if step == 1 and last:
                os.kill(os.getpid(), signal.SIGTERM)
            names = met.get(step, ())
            news.tell(Loaded(step, empty, names, tuple(f"{name} is broken" for name in names)))
            try:
                news.hear()
            except UserError as error:
                text = str(error)
            stops.append(news.stop)
    return bad.rows, text, stops


def main(workdir: Path, spec: str, overrides: list[str]) -> None:
    process = jax.process_index()
    np.savez(workdir / f"{process}.npz", **shards(workdir, spec, overrides))
    rows, text, stops = bad_records(workdir, process)
    seen = {
        "texts": distributed.gather("ä" * process),
        "failure": failure_of_the_first(),
        "bad": rows,
        "too_many": text,
        "stops": stops,
    }
    (workdir / f"{process}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    with distributed.job(distributed.Launch.from_environment(os.environ), lambda error: None):
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
