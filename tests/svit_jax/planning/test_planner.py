"""What a plan says of a step without its data, against the published recipes."""

import json
import subprocess
import sys

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.config import load_config, run_config
from svit_jax.planner import departures, plan_config, step_work
from svit_jax.planning.plan import Plan


@pytest.mark.parametrize(
    ("spec", "samples"),
    [
        ("svit_v1_5_13b_finetune.py", 128),
        ("svit_v1_5_13b_finetune.py:packed", 128),
        ("svit_v1_5_13b_lora.py:v5e", 128),
        ("svit_v1_5_13b_pretrain.py", 256),
        ("svit_v1_5_13b_pretrain.py:packed", 256),
    ],
)
def test_published_recipes_depart_in_nothing(configs, spec, samples):
    config = run_config(load_config(f"{configs}/{spec}"), with_data=False)
    work = step_work(config)
    assert work["samples"] == pytest.approx(samples, rel=0.05)
    assert departures(config, work) == []


def test_each_departure_is_a_sentence(configs):
    changed = ("data.batch_size=64", "optim.learning_rate=1e-4", "optim.trainable=.*")
    spec = f"{configs}/svit_v1_5_13b_finetune.py"
    config = run_config(load_config(spec, changed), with_data=False)
    assert departures(config, step_work(config)) == [
        "a step holds 64 samples, not 128",
        "the learning rate is 0.0001, not 2e-05",
        "the vision tower trains, which the recipe keeps frozen",
    ]


def test_simulated_gpus_have_no_kernel(configs):
    spec = f"{configs}/svit_v1_5_7b_finetune.py:tiny+packed"
    with pytest.raises(UserError, match="attention=gpu: simulated GPUs have no such kernel"):
        plan_config(spec, ("model.compute.attention=gpu",), "h100:8", "fsdp=8")


@pytest.mark.slow
def test_a_tiny_step_on_simulated_gpus(configs):
    """Whole: compiled, read, estimated, written as JSON and read back."""
    overrides = ("data.batch_size=8", "data.row_length=64", "data.pictures_per_row=1")
    plan = plan_config(
        f"{configs}/svit_v1_5_7b_finetune.py:tiny+packed", overrides, "h100:8", "fsdp=4,tensor=2"
    )
    assert (plan.devices, plan.mesh["fsdp"], plan.choices["rows_per_device"]) == (8, 4, 2)
    assert sum(plan.memory.parts.values()) == plan.memory.total
    # Each device has a quarter of the rows and half of the heads and MLP: its share of the model's
    # operations, plus what is computed again and what both halves of a pair do.
    assert plan.flops["model"] < plan.flops["hardware"]
    assert {row.network for row in plan.collectives} == {"nvlink"}
    assert {axis for row in plan.collectives for axis in row.axes} == {"fsdp", "tensor"}
    assert plan.estimate.bound in plan.estimate.limits
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.slow
def test_simulated_gpus_hold_no_float32_copy_of_all_frozen_weights(configs, tmp_path):
    """Deep and narrow, so that such a copy would outweigh everything else that is temporary."""
    layers, embed, mlp = 64, 64, 128
    file = tmp_path / "plan.json"
    keys = (
        *(f"--model.decoder.layers={layers}", "--model.lora.rank=1", "--data.row_length=64"),
        *("--data.pictures_per_row=1", "--data.batch_size=1", "--train.accumulate=1"),
    )
    config = f"{configs}/svit_v1_5_7b_lora.py:tiny+gpu1"
    command = [sys.executable, "-m", "svit_jax.cli", "plan", "--config", config]
    command += ["--topology", "h100:1", "--save", str(file), *keys]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plan = Plan.from_json(json.loads(file.read_text()))
    frozen = layers * (4 * embed * embed + 3 * embed * mlp)
    assert plan.memory.parts["weights"] > 2 * frozen
    assert plan.memory.parts["temporaries"] < 4 * frozen
