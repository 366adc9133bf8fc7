"""One compiled step of every real config, in size "tiny", on meshes of eight simulated devices."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest

from data_pipeline.loading.batch import Batch
from svit_jax.config import load_config, run_config
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.program import compile_run
from svit_jax.training.settings import RunConfig

MESHES = [
    MeshConfig(fsdp=8),
    MeshConfig(fsdp=2, tensor=2, sequence=2),
    MeshConfig(replica=2, fsdp=4),
]
OTHER_MESHES = [
    mesh
    for sizes in itertools.product((1, 2, 4, 8), repeat=4)
    if math.prod(sizes) == 8 and (mesh := MeshConfig(*sizes)) not in MESHES
]


def random_batch(config: RunConfig) -> Batch:
    """Rows of two segments and padding; a picture in the first, targets at each segment's end."""
    data, vision = config.data, config.model.vision
    rows, length, pictures = data.batch_size, data.row_length, data.pictures_per_row
    rng = np.random.default_rng(0)
    middle, end = length * 2 // 3, length - 4
    segments = np.zeros((rows, length), np.int32)
    segments[:, :middle], segments[:, middle:end] = 1, 2
    weights = np.zeros((rows, length), np.float32)
    weights[:, middle - 5 : middle], weights[::2, end - 3 : end] = 1, 1
    index = np.full((rows, length), -1, np.int32)
    index[:, 2 : 2 + vision.patches] = np.arange(vision.patches)
    size = vision.image_size
    places = np.concatenate([np.arange(middle), np.arange(length - middle)])
    return Batch(
        tokens=rng.integers(3, 400, (rows, length)).astype(np.int32),
        loss_weights=weights,
        segment_ids=segments,
        positions=np.tile(places, (rows, 1)).astype(np.int32),
        images=rng.integers(0, 256, (rows, pictures, size, size, 3)).astype(np.uint8),
        vision_index=index,
    )


def two_steps(config: RunConfig, mesh_config: MeshConfig, devices: int):
    """(initial parameters, first metrics, first moments, parameters after the second update)."""
    mesh = make_mesh(mesh_config, jax.devices()[:devices])
    plan, placement, step = compile_run(config, 10, mesh)
    state = plan.from_scratch(config.model, 0)
    before = jax.device_get(state.parameters())
    batch = random_batch(config)
    state, metrics = step(state, placement.put(batch))
    for path, array in state.trained.items():
        assert array.sharding.is_equivalent_to(plan.shardings.trained[path], array.ndim)
    metrics, optimizer = jax.device_get((metrics, state.optimizer))
    state, _ = step(state, placement.put(batch))
    assert int(state.step) == 2
    return before, metrics, jax.tree.leaves(optimizer), jax.device_get(state.parameters())


# Adam divides by |gradient| + eps: with eps well above the rounding of a gradient, an update is as
# exact as the gradient itself.
OPTIMIZER = "optim.eps=1e-3", "optim.learning_rate=1e-2", "optim.warmup_ratio=0.1"
SHAPE = "data.row_length=48", "data.pictures_per_row=1", "train.loss_chunk=16", "data.plan=padded"


@pytest.fixture(scope="module")
def finetune(make_run) -> RunConfig:
    remat = "model.compute.remat_vision=full", "model.compute.remat_decoder=full"
    return make_run("finetune", *SHAPE, *remat, *OPTIMIZER)


@pytest.fixture(scope="module")
def single(finetune):
    return two_steps(finetune, MeshConfig(), 1)


@pytest.mark.parametrize(
    "mesh",
    [*MESHES, *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in OTHER_MESHES)],
    ids=str,
)
def test_step_on_a_mesh_equals_one_device(finetune, single, mesh):
    assert len(MESHES) + len(OTHER_MESHES) == 20  # ways to write 8 as a product of four sizes
    before, metrics, moments, after = two_steps(finetune, mesh, 8)
    for name, value in single[0].items():
        np.testing.assert_array_equal(before[name], value, err_msg=f"initial {name}")
    for name, value in single[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    # The first update has rate 0, so what it leaves is the gradient, in the moments.
    for found, expected in zip(moments, single[2], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5 * max(scale, 1e-6))
    for name, value in single[3].items():
        np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=2e-5, err_msg=name)


def test_metrics_are_means_over_targets(single, finetune):
    """An untrained model's loss is near log V; every target is counted once."""
    metrics = single[1]
    weights = random_batch(finetune).loss_weights
    assert float(metrics["target_tokens"]) == weights.sum()
    assert 0 <= metrics["accuracy"] <= 1
    vocabulary = finetune.model.decoder.vocab
    assert abs(float(metrics["loss"]) - np.log(vocabulary)) < 1.5


def test_frozen_parameters_have_no_optimizer_state(single, finetune):
    before, _, moments, after = single
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    trained = {name for name in before if not name.startswith("tower/")}
    # Words that never occur have no gradient, but every array holds some that do.
    assert changed == trained
    sizes = sorted(leaf.size for leaf in moments if leaf.ndim)
    assert sizes == sorted(2 * [before[name].size for name in trained])


@pytest.mark.slow
def test_muons_step_on_a_mesh_equals_one_device(make_run):
    """Its matrices are cut up, over stacked layers' rows and columns, and made orthogonal whole."""
    muon = "optim.muon=decoder/blocks/(q|k|v|o|gate|up|down)"
    config = make_run("finetune", *SHAPE, *OPTIMIZER, muon)
    alone = two_steps(config, MeshConfig(), 1)
    _, metrics, _, after = two_steps(config, MESHES[1], 8)
    for name, value in alone[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    for name, value in alone[3].items():
        moved = not np.array_equal(alone[0][name], value)
        assert moved == (not name.startswith("tower/")), name
        np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_lora_step_on_a_mesh_equals_one_device(make_run):
    """With dropout, whose key knows no mesh; the base is in bfloat16 and has no optimizer state."""
    config = make_run("lora", *SHAPE, *OPTIMIZER, "model.lora.rank=4", "model.lora.dropout=0.3")
    alone = two_steps(config, MeshConfig(), 1)
    before, metrics, moments, after = two_steps(config, MESHES[1], 8)
    for name, value in alone[0].items():
        np.testing.assert_array_equal(before[name], value, err_msg=f"initial {name}")
        trained = name.startswith("projector/") or "_lora/" in name
        assert value.dtype == (np.float32 if trained else jax.numpy.bfloat16), name
        # A factor b of zero leaves its a without a gradient in the first update that counts.
        moved = not np.array_equal(after[name], value)
        assert moved == (trained and not name.endswith("_lora/a")), name
    for name, value in alone[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    for name, value in alone[3].items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=2e-5, err_msg=name)
    sizes = sorted(leaf.size for leaf in moments if leaf.ndim)
    trained_sizes = [v.size for v in before.values() if v.dtype == np.float32]
    assert sizes == sorted(2 * trained_sizes)


def test_pretraining_step_compiles_and_trains_the_projector_alone(make_run):
    config = make_run("pretrain", *SHAPE, *OPTIMIZER, "model.compute.dtype=bfloat16")
    mesh = MeshConfig(replica=2, fsdp=4)
    before, metrics, _, after = two_steps(config, mesh, 8)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("projector/")}
    assert all(array.dtype == np.float32 for array in after.values())
    assert np.isfinite(float(metrics["loss"]))


def test_13b_configs_are_the_7b_ones_at_another_size(configs):
    """At equal size they are equal, so a step that compiles for one compiles for the other."""
    data = "data.train=a", "data.tokenizer=b"
    for stage in ("pretrain", "finetune", "lora"):
        small, large = (
            run_config(load_config(f"{configs}/svit_v1_5_{size}_{stage}.py:tiny", data))
            for size in ("7b", "13b")
        )
        assert small == large


def test_toy_step_compiles_on_a_mesh(configs):
    data = "data.train=a", "data.tokenizer=b", "data.batch_size=8"
    config = run_config(load_config(f"{configs}/toy.py:scratch", data))
    config = dataclasses.replace(config, mesh=MeshConfig(fsdp=8))
    plan, placement, step = compile_run(config, 10, make_mesh(config.mesh))
    assert callable(step) and plan.trainable == set(plan.abstract.parameters())
    assert placement.local_rows == tuple(range(8))


@pytest.mark.slow
def test_sequence_splits_the_memory_of_activations(make_run):
    """One long row on one device and on four, which hold all parameters each. A quarter remains of
    whatever has a query's axis; keys, values and the table's rows are whole for a while. Both with
    XLA's attention: that of one CPU keeps no scores."""
    shape = "data.batch_size=1", "data.row_length=2048", "data.pictures_per_row=4"
    loss = "train.loss_groups=0", "train.loss_chunk=16"
    same = "optim.trainable=projector/.*", "model.compute.attention=xla"
    config = make_run("finetune", *shape, *loss, *same)

    def temporary_bytes(mesh: MeshConfig, devices: int) -> int:
        *_, step = compile_run(config, 10, make_mesh(mesh, jax.devices()[:devices]))
        return step.memory_analysis().temp_size_in_bytes

    whole = temporary_bytes(MeshConfig(fsdp=1), 1)
    split = temporary_bytes(MeshConfig(fsdp=1, sequence=4), 4)
    assert whole / 5 < split < whole / 3
