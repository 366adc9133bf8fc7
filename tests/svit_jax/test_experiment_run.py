"""An experiment whole, on simulated devices: planned, run, reported; on several hosts too."""

import json

import pytest
from several_processes import codes, started

from svit_jax.cli import main as svit
from svit_jax.training.loop import train
from tpu_scripts.experiments.__main__ import main

SMALL = (
    "--data.batch_size=8",
    "--data.row_length=128",
    "--data.pictures_per_row=2",
    "--data.plan=packed",
    "--train.loss_groups=0",
    "--model.compute.dtype=float32",
    "--train.loss_chunk=32",
)


def test_a_run_that_only_measures_saves_nothing(make_run, tmp_path):
    result = train(make_run("finetune", "train.steps=2", "checkpoint.every=0"), tmp_path)
    assert result.step == 2 and (tmp_path / "timings.jsonl").exists()
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def shortlist(configs, tmp_path_factory):
    """Two meshes planned for eight simulated GPUs, and before them one that asks for sixteen."""
    file = tmp_path_factory.mktemp("plans") / "sweep.json"
    command = [
        *("plan", "--config", f"{configs}/svit_v1_5_7b_finetune.py:tiny", "--topology", "h100:8"),
        *("--sweep", "--meshes", "tensor=1,2", "--rows", "1", "--remat", "none", "--jobs", "1"),
        *("--no-cache", "--json", *SMALL),
    ]
    with pytest.MonkeyPatch.context() as patch, file.open("w") as out:
        patch.setattr("sys.stdout", out)
        assert svit(command) == 0
    found = json.loads(file.read_text())
    assert [row["status"] for row in found["candidates"]] == ["fits", "fits"]
    plan = json.loads(json.dumps(found["candidates"][1]["plan"]))
    plan["overrides"].append("mesh.fsdp=16")
    plan["estimate"]["tokens_per_second"] = 1e12
    found["candidates"].append({"plan": plan})
    file.write_text(json.dumps(found))
    return file


def arguments(shortlist, tiny_data, out) -> list[str]:
    data = f"--data.train={tiny_data.dataset}", f"--data.tokenizer={tiny_data.tokenizer}"
    return [str(shortlist), "--out", str(out), "--steps=5", "--warm-up=2", *data]


@pytest.mark.slow
def test_planned_meshes_run_for_real(shortlist, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    out = tmp_path / "out"
    assert main(arguments(shortlist, tiny_data, out)) == 0
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert [row["state"] for row in rows] == ["failed", "measured", "measured"]
    assert "16" in rows[0]["reason"] and "8" in rows[0]["reason"]
    for row in rows[1:]:
        found = row["measured"]
        assert row["rehearsal"] and found["steps"] == 3 and found["devices"] == 8
        # No more real tokens than places.
        tokens = found["tokens_per_second"] * found["seconds"] * 8
        assert 0 < tokens <= 8 * 128
    assert not list((out / "runs").glob("*/checkpoints/*"))

    # Another time nothing is run again: what was measured stays as it was.
    before = {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.json")}
    assert main(arguments(shortlist, tiny_data, out)) == 0
    assert before == {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.json")}


@pytest.mark.slow
def test_two_hosts_run_the_same_rows(shortlist, tiny_data, tmp_path):
    """Both start the same command; the mesh that fails doesn't keep them from the others."""
    command = [
        *("-m", "tpu_scripts.experiments", *arguments(shortlist, tiny_data, tmp_path / "out")),
        "--top=2",
    ]
    with started(2, command, tmp_path / "logs", devices=4) as hosts:
        assert codes(hosts) == [0, 0], (tmp_path / "logs" / "0.log").read_text()[-3000:]
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert [row["state"] for row in rows] == ["failed", "measured"]
    assert rows[1]["measured"]["processes"] == 2
