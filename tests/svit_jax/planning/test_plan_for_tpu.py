"""Plans of the 13B's stage 2 at reduced depth, compiled for TPUs: needs libtpu, and no TPU.

Memory and collectives depend on the compiler, and so they are recorded for each pair of versions
that was run. After a change that is meant to change them, or with new versions, record them anew:

    RECORD_PLANS=1 make tpu-test
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from svit_jax.planner import plan_config
from svit_jax.planning.buffers import read_assignment
from svit_jax.planning.hlo import parse
from svit_jax.planning.plan import Plan
from svit_jax.planning.temporaries import temporary_parts
from svit_jax.planning.topology import libtpu_version, parse_topology, topology_devices

RECORDED = Path(__file__).with_name("plans.json")
RECORDING = "RECORD_PLANS" in os.environ
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        libtpu_version() is None,
        reason="libtpu is not installed: pip install 'svit-jax[plan]'",
    ),
]

# The real widths, rows and remat; layers are scanned, so that depth changes sizes and no code.
LAYERS = 4
REDUCED = (
    f"model.decoder.layers={LAYERS}",
    "model.vision.layers=3",
    "data.batch_size=8",
    "data.row_length=2048",
    "data.pictures_per_row=3",
)


@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x2", "v6e:2x4"])
def test_memory_and_collectives_of_the_13b(configs, topology):
    config = f"{configs}/svit_v1_5_13b_finetune.py:packed"
    plan = plan_config(config, REDUCED, topology, "fsdp=8")
    check_closed_forms(plan)
    found = {
        "memory": plan.memory.total,
        "collectives": {
            f"{row.kind} over {'+'.join(row.axes)}": [row.count, row.bytes]
            for row in plan.collectives
        },
    }
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    versions = f"jax {plan.versions['jax']}, libtpu {plan.versions['libtpu']}"
    if RECORDING:
        recorded.setdefault(versions, {})[topology] = found
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    if topology not in recorded.get(versions, {}):
        pytest.skip(f"nothing is recorded for {versions}; see this file's head")
    assert found == recorded[versions][topology]


def check_closed_forms(plan: Plan) -> None:
    """Of Vicuna-13B's widths: weights that train, in float32, with two moments each, over eight
    devices; and forward, again and two backward products of 2048 tokens a device."""
    embed, mlp, vocab = 5120, 13824, 32000
    layer = 4 * embed * embed + 3 * embed * mlp
    trained = LAYERS * layer + 2 * vocab * embed + 1024 * embed + embed * embed
    assert sum(plan.memory.parts.values()) == plan.memory.total
    assert plan.memory.fits
    assert plan.memory.parts["optimizer"] == pytest.approx(2 * 4 * trained / 8, rel=0.01)
    products = 4 * 2 * 2048 * LAYERS * layer
    assert products < plan.flops["hardware"] < 1.35 * products


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    trained: list[Any]


DEPTH, WIDTH = 8, 2048


@pytest.mark.parametrize("rows", [32768, 65536])
def test_temporaries_of_a_plain_network(tmp_path, rows):
    """Products and tanh: each of DEPTH layers' outputs waits for the backward pass, in HBM, for
    they are larger than the on-chip memory; and a weight's gradient is there by then."""

    def step(state: State, batch: jax.Array) -> State:
        def loss(trained: list[jax.Array]) -> jax.Array:
            hidden = batch
            for weight in trained:
                hidden = jnp.tanh(hidden @ weight.astype(jnp.bfloat16))
            return (hidden.astype(jnp.float32) ** 2).sum()

        gradients = jax.grad(loss)(state.trained)
        norm = jnp.sqrt(sum((gradient**2).sum() for gradient in gradients))
        return State([w - g / norm for w, g in zip(state.trained, gradients, strict=True)])

    device = topology_devices(parse_topology("v5e:2x2"))[0]
    where = jax.sharding.SingleDeviceSharding(device)
    weight = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32, sharding=where)
    batch = jax.ShapeDtypeStruct((rows, WIDTH), jnp.bfloat16, sharding=where)
    lowered = jax.jit(step, donate_argnums=0).lower(State([weight] * DEPTH), batch)
    compiled = lowered.compile(compiler_options={"xla_dump_to": str(tmp_path)})
    assignment = read_assignment(tmp_path)
    parts = temporary_parts(assignment, parse(compiled.as_text()), [(WIDTH * WIDTH,)])
    assert parts["activations"] == pytest.approx(DEPTH * rows * WIDTH * 2, rel=0.001)
    assert 2 * WIDTH**2 <= parts["gradients"] <= 4 * DEPTH * WIDTH**2
    assert sum(parts.values()) == assignment.block
    figures = compiled.memory_analysis()
    assert assignment.block <= figures.temp_size_in_bytes
    in_use = figures.argument_size_in_bytes + sum(size for _, size in assignment.peak())
    assert figures.peak_memory_in_bytes == pytest.approx(in_use, rel=1e-4)
