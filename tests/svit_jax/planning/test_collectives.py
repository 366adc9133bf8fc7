"""Collectives of the training step, so that a change that adds one is seen.

The counts depend on the version of JAX, and so they are recorded for each that was run. After a
change that is meant to change them, or with a new version, record them anew:

    RECORD_COLLECTIVES=1 python -m pytest tests/svit_jax/planning -m "slow or not slow"
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from svit_jax.planning.groups import KINDS, count_collectives

RECORDED = Path(__file__).with_name("collectives.json")
RECORDING = "RECORD_COLLECTIVES" in os.environ
OVERRIDES = (
    *("data.batch_size=8", "data.row_length=48", "data.pictures_per_row=1"),
    *("data.plan=packed", "model.compute.dtype=float32", "train.loss_chunk=16"),
)

HAND_MADE = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %all-gather.1 = f32[8,4]{1,0} all-gather(%p), channel_id=1, dimensions={0}
  %fusion = f32[8]{0} fusion(%all-gather.1), kind=kLoop, calls=%all-reduce_computation
  %all-gather-start.2 = (f32[4]{0}, f32[8]{0}) all-gather-start(%p), channel_id=2
  %all-gather-done.2 = f32[8]{0} all-gather-done(%all-gather-start.2)
  all-reduce.7 = (f32[], /*index=1*/f32[2]{0}) all-reduce(a, b), to_apply=%add
  %done = f32[8]{0} collective-permute-done(%collective-permute-start)
  ROOT %reduce-scatter = f32[1]{0} reduce-scatter(%p), metadata={op_name="all-to-all(x)"}
}
"""


def test_instructions_are_counted_once_by_kind():
    found = count_collectives(HAND_MADE)
    assert found == dict(zip(KINDS, (2, 1, 1, 0, 0), strict=True))


def sharded_sum(x: jax.Array) -> jax.Array:
    return x.sum()


def test_a_known_program_has_its_one_all_reduce():
    """The sum of an array whose rows lie on eight devices."""
    mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    shape = jax.ShapeDtypeStruct((8, 4), "float32", sharding=rows)
    found = count_collectives(jax.jit(sharded_sum).lower(shape).compile().as_text())
    assert found == {**dict.fromkeys(KINDS, 0), "all-reduce": 1}


def compile_steps(configs: Path, meshes: list[dict[str, int]]) -> tuple[list[dict], str]:
    """The step's collectives on each mesh, and what XLA said while compiling."""
    script = Path(__file__).with_name("compile_meshes.py")
    config = f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"
    done = subprocess.run(
        [sys.executable, str(script), config, json.dumps(OVERRIDES), json.dumps(meshes)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


def check_steps(configs: Path, meshes: list[dict[str, int]]) -> None:
    counts, said = compile_steps(configs, meshes)
    # XLA's last resort: an array, such as the tower's features, whole on every device.
    assert "Involuntary full rematerialization" not in said, said[-3000:]
    recorded = json.loads(RECORDED.read_text())
    found = {_name(sizes): count for sizes, count in zip(meshes, counts, strict=True)}
    if RECORDING:
        recorded[jax.__version__] = {**recorded.get(jax.__version__, {}), **found}
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    if jax.__version__ not in recorded:
        pytest.skip(f"no collectives are recorded for jax {jax.__version__}; see this file's head")
    assert found == {name: recorded[jax.__version__][name] for name in found}


def _name(sizes: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def test_collectives_of_a_step_on_mixed_meshes(configs):
    mixed = {"fsdp": 2, "tensor": 2, "sequence": 2}
    check_steps(configs, [{"replica": 2, "fsdp": 4}, mixed])


@pytest.mark.slow
def test_collectives_of_a_step_on_meshes_of_one_axis(configs):
    axes = ("replica", "tensor", "sequence")
    check_steps(configs, [{"fsdp": 8}, *({"fsdp": 1, axis: 8} for axis in axes)])
