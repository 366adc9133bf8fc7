"""A run killed with SIGKILL at twenty random moments ends as if never interrupted.

`benchmarks/chaos.py` kills and restarts it; here both workdirs are compared with Orbax and `json`
alone. Its recorded log is benchmarks/results/chaos.json.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

CHAOS = Path(__file__).resolve().parents[2] / "benchmarks" / "chaos.py"
KILLS, STEPS = 20, 150


def newest(workdir: Path, item: str) -> dict[str, np.ndarray]:
    with ocp.PyTreeCheckpointer() as reader:
        nested = reader.restore(workdir / "checkpoints" / str(STEPS) / item)
    leaves, _ = jax.tree_util.tree_flatten_with_path(nested)
    return {jax.tree_util.keystr(path): np.asarray(value) for path, value in leaves}


def logged(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_killed_at_random_moments_ends_as_if_never_interrupted(tmp_path):
    command = [sys.executable, str(CHAOS), "--kills", str(KILLS), "--workdir", str(tmp_path)]
    subprocess.run([*command, "--out", str(tmp_path)], check=True)
    kills = json.loads((tmp_path / "chaos.json").read_text())["kills"]
    hits = [kill["hit"] for kill in kills]
    assert len(hits) == KILLS
    assert not [hit for hit in hits if hit.startswith("nothing")]
    assert {"compile", "restore", "step", "save", "evaluation"} <= set(hits)
    assert any(kill["checkpoint_half_written"] for kill in kills)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert [row["step"] for row in logged(whole)] == list(range(1, STEPS + 1))
    assert logged(killed) == logged(whole)
    for item in ("parameters", "optimizer"):
        ours, theirs = newest(killed, item), newest(whole, item)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert theirs[name].dtype != object
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
