"""Batches on their way to the devices: nothing moves, and each host makes the rows it needs."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.loading.batch import Batch
from svit_jax.batch import LOGICAL, BatchPlacement, batch_shapes
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

FIELDS = [field.name for field in dataclasses.fields(Batch)]
MESHES = [
    MeshConfig(),
    MeshConfig(replica=2, fsdp=4),
    MeshConfig(fsdp=2, tensor=2, sequence=2),
    MeshConfig(fsdp=1, tensor=8),
]


def random_batch(rows: int, length: int, pictures: int, size: int) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        tokens=rng.integers(0, 99, (rows, length), np.int32),
        loss_weights=rng.random((rows, length), np.float32),
        segment_ids=rng.integers(0, 4, (rows, length), np.int32),
        positions=rng.integers(0, 9, (rows, length), np.int32),
        images=rng.integers(0, 256, (rows, pictures, size, size, 3), np.uint8),
        vision_index=rng.integers(-1, 4, (rows, length), np.int32),
    )


def test_every_field_has_logical_axes_and_a_shape():
    assert list(LOGICAL) == FIELDS == list(batch_shapes(8, 16, 2, 4))
    for name, shape in batch_shapes(8, 16, 2, 4).items():
        expected = getattr(random_batch(8, 16, 2, 4), name)
        assert (shape.shape, shape.dtype) == (expected.shape, expected.dtype)


def test_batch_is_a_pytree_of_its_fields():
    batch = random_batch(2, 4, 1, 2)
    leaves, structure = jax.tree.flatten(batch)
    assert [leaf is getattr(batch, name) for leaf, name in zip(leaves, FIELDS, strict=True)]
    names = jax.tree.unflatten(structure, FIELDS)
    assert isinstance(names, Batch) and names.images == "images"


@pytest.mark.parametrize("config", MESHES, ids=str)
def test_put_round_trips(config):
    batch = random_batch(8, 16, 2, 4)
    mesh = make_mesh(config)
    placement = BatchPlacement(mesh, Rules(), batch_shapes(8, 16, 2, 4))
    assert placement.local_rows == tuple(range(8))
    placed, abstract = placement.put(batch), placement.abstract()
    parts = (mesh.shape["replica"] * mesh.shape["fsdp"], mesh.shape["sequence"])
    for name in FIELDS:
        array, shape = getattr(placed, name), getattr(abstract, name)
        np.testing.assert_array_equal(array, getattr(batch, name))
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
        assert array.sharding.shard_shape(array.shape)[0] == 8 // parts[0]
    assert placed.tokens.sharding.shard_shape((8, 16)) == (8 // parts[0], 16 // parts[1])


class HostsView:
    """A sharding of which this host is told only some devices, as on a pod."""

    def __init__(self, sharding, devices):
        self._sharding, self._devices = sharding, set(devices)

    def addressable_devices_indices_map(self, shape):
        indices = self._sharding.devices_indices_map(shape)
        return {d: index for d, index in indices.items() if d in self._devices}


@pytest.mark.parametrize(
    "config, devices, rows",
    [
        (MeshConfig(), [0, 1], (0, 1)),
        (MeshConfig(), [2, 7], (2, 7)),
        (MeshConfig(replica=2, fsdp=4), [4, 5, 6, 7], (4, 5, 6, 7)),
        # Hosts that share rows across `tensor` each make them.
        (MeshConfig(fsdp=2, tensor=4), [0, 1], (0, 1, 2, 3)),
        (MeshConfig(fsdp=2, tensor=4), [2, 3], (0, 1, 2, 3)),
        (MeshConfig(fsdp=2, sequence=4), [5], (4, 5, 6, 7)),
    ],
)
def test_local_rows_are_those_of_the_hosts_devices(monkeypatch, config, devices, rows):
    import svit_jax.batch as module

    true = module.named_sharding
    mine = [jax.devices()[i] for i in devices]
    monkeypatch.setattr(module, "named_sharding", lambda *a: HostsView(true(*a), mine))
    placement = BatchPlacement(make_mesh(config), Rules(), batch_shapes(8, 16, 1, 4))
    assert placement.local_rows == rows


def test_indivisible_batch_names_the_field():
    with pytest.raises(UserError, match=r"batch field tokens.*'batch' of size 6.*8 devices"):
        BatchPlacement(make_mesh(MeshConfig()), Rules(), batch_shapes(6, 16, 1, 4))
    with pytest.raises(UserError, match=r"batch field tokens.*'length' of size 15"):
        mesh = make_mesh(MeshConfig(fsdp=4, sequence=2))
        BatchPlacement(mesh, Rules(), batch_shapes(8, 15, 1, 4))
