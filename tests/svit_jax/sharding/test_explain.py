"""What is said of a parameter's place is what the devices show."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.cli import main
from svit_jax.config import default_config, run_config
from svit_jax.sharding.explain import abstract_mesh, explain
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.program import plan_run
from svit_jax.training.sharding_report import report_sharding


@pytest.fixture
def tiny():
    config = default_config("tiny")
    config.optim.trainable = ("projector/.*", "decoder/.*")
    config.model.compute.frozen_dtype = "bfloat16"
    return config


@pytest.mark.parametrize(
    "sizes", [{"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "sequence": 4}]
)
def test_bytes_and_copies_are_those_on_the_devices(tiny, sizes):
    tiny.mesh.update(sizes)
    config = run_config(tiny, with_data=False)
    report = report_sharding(config)
    mesh = make_mesh(config.mesh)
    plan = plan_run(config, 1, mesh)
    placed = {
        path: jnp.zeros(s.shape, s.dtype, device=s.sharding)
        for path, s in plan.abstract.parameters().items()
    }
    assert {each.name for each in report.parameters} == set(placed)
    trained = frozen = 0
    for each in report.parameters:
        shards = placed[each.name].addressable_shards
        assert each.bytes_a_device == shards[0].data.nbytes, each.name
        assert each.copies == sum(shard.index == shards[0].index for shard in shards), each.name
        assert bool(each.replicated) == (each.copies > 1), each.name
        trained += shards[0].data.nbytes if each.name in plan.trainable else 0
        frozen += shards[0].data.nbytes if each.name not in plan.trainable else 0
    assert (report.trained_bytes, report.frozen_bytes) == (trained, frozen)
    # Adam's two float32 moments for each, and an int32 count for Adam and for the schedule.
    assert report.optimizer_bytes == 2 * trained + 2 * 4


def test_the_whole_7b_is_there_once():
    """Llama-2-7B has 6,738,415,616 parameters (arXiv 2307.09288's checkpoint)."""
    config = default_config("7b")
    config.optim.trainable = (".*",)
    config.mesh.update(replica=2, fsdp=32, tensor=4)
    report = report_sharding(run_config(config, with_data=False))
    total = sum(
        each.bytes_a_device * 256 // each.copies
        for each in report.parameters
        if each.name.startswith("decoder/")
    )
    assert total == 4 * 6_738_415_616


def reasons(config: MeshConfig, devices: int, shape: tuple[int, ...], *logical: str | None):
    array = {"x": jax.ShapeDtypeStruct(shape, np.float32)}
    (found,) = explain(abstract_mesh(config, devices), Rules(), array, {"x": logical})
    return found


def test_every_reason_for_a_copy_is_told():
    mesh = MeshConfig(replica=1, fsdp=2, tensor=4)
    assert reasons(mesh, 8, ()).replicated == ("fsdp+tensor: a scalar",)
    assert reasons(mesh, 8, (4, 6), "layers", "embed").replicated == (
        "tensor: no rule for 'layers'",
    )
    assert reasons(mesh, 8, (8,), "mlp").replicated == ("fsdp: none of its axes lies there",)
    assert reasons(mesh, 8, (8, 8), "embed", "mlp").replicated == ()
    assert reasons(MeshConfig(fsdp=1, tensor=4), 4, (8,), "embed").replicated == (
        "tensor: 'embed' lies on fsdp, which is 1",
    )
    odd = reasons(mesh, 8, (8, 6), "embed", "mlp")
    assert odd.replicated == ("tensor: 'mlp' of size 6 does not divide over 4",)
    assert (odd.bytes_a_device, odd.copies) == (8 * 6 * 4 // 2, 4)


def test_command_needs_neither_data_nor_workdir(configs, capsys):
    command = ["train", "--config", f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"]
    assert main([*command, "--explain-sharding", "64", "--mesh.tensor=2", "--mesh.fsdp=-1"]) == 0
    table = capsys.readouterr().out
    assert "mesh: replica 1, fsdp 32, tensor 2, sequence 1 (64 devices)" in table
    (row,) = [line for line in table.splitlines() if line.startswith("decoder/blocks/q ")]
    assert row.split("  ")[0] == "decoder/blocks/q" and "-, fsdp, tensor, -" in row
    assert f"{2 * 64 * 8 * 8 * 4 // 64:,}" in row

    assert main([*command, "--explain-sharding", "--mesh.fsdp=4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["mesh"] == {"replica": 1, "fsdp": 4, "tensor": 1, "sequence": 1}
    assert {"name", "shape", "logical", "spec", "bytes_a_device"} <= report["parameters"][0].keys()


def test_a_mesh_that_does_not_fit_shows_the_table_and_fails(configs, capsys):
    command = ["train", "--config", f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"]
    assert main([*command, "--explain-sharding", "--mesh.fsdp=1", "--mesh.tensor=16"]) == 1
    found = capsys.readouterr()
    assert "'heads' of size 8 does not divide over 16" in found.out
    assert "decoder/blocks/k: 'kv_heads' of size 8" in found.err


def test_training_still_wants_a_workdir(configs, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config", f"{configs / 'toy.py'}:scratch"])
    assert stopped.value.code == 2
    assert "--workdir" in capsys.readouterr().err
