"""Plans of answering: sizes against closed forms, on simulated devices."""

import json
import subprocess
import sys

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.config import load_config, run_config
from svit_jax.generation_planner import Answering, GenerationPlan, plan_generation
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model

ROWS, CONTEXT = 8, 256
AXES = {"fsdp": 2, "tensor": 4}


@pytest.fixture(scope="module")
def config_file(configs) -> str:
    return f"{configs}/svit_v1_5_7b_finetune.py:tiny"


def plan(config_file: str, int8: str) -> GenerationPlan:
    asked = Answering(ROWS, CONTEXT, prompt=100, int8=int8)
    return plan_generation(config_file, (), "h100:8", "fsdp=2,tensor=4", asked)


@pytest.fixture(scope="module")
def exact(config_file) -> GenerationPlan:
    return plan(config_file, "none")


@pytest.fixture(scope="module")
def model(config_file):
    return run_config(load_config(config_file, ()), False).model


def test_the_cache_is_every_layers_keys_and_values(exact, model):
    decoder = model.decoder
    values = 2 * decoder.layers * ROWS * CONTEXT * decoder.kv_heads * decoder.head_dim
    assert exact.decode.memory.parts["cache"] == 2 * values // 8  # bfloat16, over eight devices
    assert exact.mesh == {"replica": 1, "sequence": 1, **AXES}
    assert exact.prompts_at_once == 2 and exact.answering.rows == ROWS


def test_weights_are_in_bfloat16_and_split_over_the_devices(exact, model):
    sizes = [2 * shape.size for shape in flat_parameters(abstract_model(model)).values()]
    weights = exact.prefill.memory.parts["weights"]
    # Norms and biases lie whole on every device.
    assert sum(sizes) / 8 <= weights <= sum(sizes) / 8 + sum(s for s in sizes if s < 20_000)
    assert weights > exact.decode.memory.parts["weights"]  # which reads no tower


def test_int8_halves_kernels_and_cache(config_file, exact, model):
    small = plan(config_file, "all")
    decoder = model.decoder
    vectors = 2 * decoder.layers * ROWS * CONTEXT * decoder.kv_heads
    assert small.decode.memory.parts["cache"] == vectors * (decoder.head_dim + 4) // 8
    kernels = {
        path: shape.size
        for path, shape in flat_parameters(abstract_model(model)).items()
        if path.startswith("decoder/blocks/") and "norm" not in path
    }
    assert len(kernels) == 7
    before, after = (p.decode.memory.parts["weights"] for p in (exact, small))
    saved = sum(kernels.values()) / 8
    scales = after - (before - saved)
    assert 0 < scales < 0.2 * saved


def test_times_and_collectives(exact):
    call = exact.decode
    assert exact.tokens_per_second == pytest.approx(ROWS * 4 / call.seconds)
    assert exact.tokens_per_second_of_a_row == pytest.approx(4 / call.seconds)
    assert call.bound in call.limits
    assert {"tensor"} <= {axis for row in call.collectives for axis in row.axes}
    assert json.loads(json.dumps(exact.to_json()))["answering"]["rows"] == ROWS


def test_what_cant_be_is_refused():
    with pytest.raises(UserError, match="no longer than the context"):
        Answering(context=100, prompt=200)
    with pytest.raises(UserError, match="at least 1"):
        Answering(rows=0)


@pytest.mark.slow
def test_the_command(config_file, tmp_path):
    options = ("--generate", "--requests", "4", "--context", "128", "--prompt", "64")
    command = ["plan", "--config", config_file, "--topology", "h100:2", "--mesh", "tensor=2"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "svit_jax.cli",
            *command,
            *options,
            "--save",
            tmp_path / "plan.json",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "tokens/s in all" in done.stdout
    assert json.loads((tmp_path / "plan.json").read_text())["answering"]["rows"] == 4
