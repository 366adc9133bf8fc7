"""Where arrays lie: meshes, specs, and the errors that name the parameter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from data_pipeline.common.errors import UserError
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.mesh import MESH_AXES, MeshConfig, make_mesh, parse_mesh, resolve_shape
from svit_jax.sharding.rules import (
    Rules,
    active_rules,
    named_sharding,
    shard,
    spec,
    tree_shardings,
)


def test_a_mesh_written_as_text():
    assert parse_mesh("fsdp=4,tensor=2") == MeshConfig(fsdp=4, tensor=2)
    assert parse_mesh("replica=-1,fsdp=1") == MeshConfig(replica=-1, fsdp=1)
    assert parse_mesh("") == MeshConfig()


@pytest.mark.parametrize("text", ["fdsp=4", "fsdp", "fsdp=two", "fsdp=2,fsdp=4", "tensor=--2"])
def test_a_mesh_that_cannot_be_read(text):
    with pytest.raises(UserError, match="is not an axis with its size; write it as fsdp=4"):
        parse_mesh(text)


@pytest.mark.parametrize(
    "config, devices, expected",
    [
        (MeshConfig(), 8, (1, 8, 1, 1)),
        (MeshConfig(), 1, (1, 1, 1, 1)),
        (MeshConfig(replica=2, fsdp=-1, tensor=2), 8, (2, 2, 2, 1)),
        (MeshConfig(replica=-1, fsdp=4), 8, (2, 4, 1, 1)),
        (MeshConfig(fsdp=2, tensor=2, sequence=2), 8, (1, 2, 2, 2)),
    ],
)
def test_free_axis_takes_what_is_left(config, devices, expected):
    assert resolve_shape(config, devices) == expected


@pytest.mark.parametrize(
    "config, devices, message",
    [
        (MeshConfig(tensor=3), 8, "must multiply to 8"),
        (MeshConfig(fsdp=4), 8, "does not fit 8 devices"),
        (MeshConfig(fsdp=-1, tensor=-1), 8, "at most one axis may be -1"),
        (MeshConfig(tensor=0), 8, "an axis below 1"),
        (MeshConfig(tensor=-2), 8, "an axis below 1"),
        (MeshConfig(tensor=16), 8, "must multiply to 8"),
    ],
)
def test_meshes_that_do_not_fit(config, devices, message):
    with pytest.raises(UserError, match=message):
        resolve_shape(config, devices)


def test_mesh_has_the_four_axes_and_their_types():
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    assert mesh.axis_names == MESH_AXES == ("replica", "fsdp", "tensor", "sequence")
    assert mesh.devices.shape == (2, 2, 2, 1)
    assert mesh.axis_types == (AxisType.Auto,) * 4
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}


@dataclasses.dataclass(frozen=True)
class PodDevice:
    """What a mesh is made from, as a device of a multi-slice TPU job shows it."""

    id: int
    slice_index: int
    process_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def pod(slices: int, hosts: int = 2) -> list[PodDevice]:
    """Slices of hosts x 4 chips, in an order that is not the slices'."""
    found = [
        PodDevice(4 * (hosts * s + x) + y, s, hosts * s + x, (x, y, 0))
        for s in range(slices)
        for x in range(hosts)
        for y in range(4)
    ]
    return sorted(found, key=lambda device: (device.coords, device.slice_index))


@pytest.mark.parametrize("slices, replica", [(2, 2), (2, 4), (4, 4)])
def test_slices_lie_along_replica(slices, replica):
    """Along every other axis a device's neighbours are of its own slice."""
    config = MeshConfig(replica=replica, fsdp=-1, tensor=2)
    mesh = make_mesh(config, pod(slices))
    assert mesh.devices.shape == (replica, 4 * slices // replica, 2, 1)
    assert {device.id for device in mesh.devices.flat} == set(range(8 * slices))
    of_replica = [{d.slice_index for d in part.flat} for part in mesh.devices]
    assert all(len(found) == 1 for found in of_replica)
    # Replicas of a slice stand together, so that they are reduced within it first.
    order = [found.pop() for found in of_replica]
    assert order == sorted(order) and set(order) == set(range(slices))


@pytest.mark.parametrize("slices", [1, 2])
def test_axes_that_share_a_dimension_of_the_torus(slices):
    """Of 4 x 4 chips axes of 2, 2 and 4: one of the fours is cut up."""
    config = MeshConfig(replica=slices, fsdp=2, tensor=2, sequence=4)
    mesh = make_mesh(config, pod(slices, hosts=4))
    assert {device.id for device in mesh.devices.flat} == set(range(16 * slices))
    for n, part in enumerate(mesh.devices):
        assert {device.slice_index for device in part.flat} == {n}
        for axis, size in enumerate((2, 2, 4)):  # each along one dimension
            for row in np.moveaxis(part, axis, -1).reshape(-1, size):
                x, y, _ = (set(places) for places in zip(*(d.coords for d in row), strict=True))
                assert sorted((len(x), len(y))) == [1, size]


def test_slices_that_replica_does_not_hold():
    with pytest.raises(UserError, match=r"mesh\.replica=1 is no multiple of the job's 2 slices"):
        make_mesh(MeshConfig(), pod(2))


def test_one_slice_needs_no_replica():
    assert make_mesh(MeshConfig(tensor=2), pod(1)).devices.shape == (1, 4, 2, 1)


def test_spec_places_each_logical_axis():
    assert spec(Rules(), ("layers", "embed", "heads", "head_dim")) == P(
        None, "fsdp", "tensor", None
    )
    assert spec(Rules(), ("batch", "length")) == P(("replica", "fsdp"), "sequence")
    assert spec(Rules(), (None, None)) == P(None, None)


def test_colliding_axes_name_parameter_and_axis():
    rules = dataclasses.replace(Rules(), mlp="fsdp")
    with pytest.raises(UserError) as error:
        spec(rules, ("layers", "embed", "mlp"), "decoder/blocks/gate")
    for word in ("decoder/blocks/gate", "'embed'", "'mlp'", "'fsdp'"):
        assert word in str(error.value)
    with pytest.raises(UserError, match="'batch' and 'act_embed'"):
        spec(dataclasses.replace(Rules(), act_embed="replica"), ("batch", "act_embed"))


def test_misspelt_axis_is_an_attribute_error():
    with pytest.raises(AttributeError, match="embde"):
        spec(Rules(), ("embde",))
    with pytest.raises(TypeError, match="embde"):
        Rules(embde="fsdp")


def test_indivisible_size_names_parameter_axis_and_sizes():
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    with pytest.raises(UserError) as error:
        named_sharding(mesh, Rules(), ("vocab", "embed"), (512, 66), "decoder/embedding")
    for word in ("decoder/embedding", "'embed'", "66", "fsdp", "4 devices"):
        assert word in str(error.value)


def test_every_parameter_has_a_place(make_run):
    config = make_run("finetune")
    model = abstract_model(config.model)
    shapes, axes = flat_parameters(model), logical_axes(model)
    assert shapes.keys() == axes.keys()
    assert all(len(axes[path]) == len(shapes[path].shape) for path in shapes)
    shardings = tree_shardings(make_mesh(MeshConfig(fsdp=2, tensor=4)), Rules(), shapes, axes)
    matrices = [p for p, s in shapes.items() if len(s.shape) >= 2 and not p.endswith("bias")]
    for path in matrices:
        axis_names = [a for a in jax.tree.leaves(tuple(shardings[path].spec)) if a]
        assert "fsdp" in axis_names, f"{path} is not fully sharded: {shardings[path].spec}"


def test_shard_constrains_only_under_active_rules():
    x = jnp.arange(32.0).reshape(8, 4)
    assert shard(x, "batch", "length") is x
    mesh = make_mesh(MeshConfig(fsdp=4, sequence=2))

    def constrained(x: jax.Array) -> jax.Array:
        with active_rules(mesh, Rules()):
            return shard(x * 2, "batch", "length")

    y = jax.jit(constrained)(x)
    assert y.sharding.shard_shape(y.shape) == (2, 2)
    np.testing.assert_array_equal(y, np.arange(32.0).reshape(8, 4) * 2)
    assert shard(x, "batch", "length") is x
