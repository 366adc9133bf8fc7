"""Names of slices, the table of chips, and the links of a torus, against published figures."""

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.chips import CHIPS, find_chip
from svit_jax.planner import mesh_overrides
from svit_jax.planning.groups import Exchange
from svit_jax.planning.memory import excess
from svit_jax.planning.network import Network
from svit_jax.planning.topology import parse_topology


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("v5e:16x16", "v5e:16x16", 256),
        ("2xv5e:4x4", "2xv5e:4x4", 32),
        ("v4:4x4x4", "v4:4x4x4", 64),
        ("v5litepod-256", "v5e:16x16", 256),
        # Cloud TPU counts the cores of v4 and v5p, and the chips of the others.
        ("v5p-128", "v5p:4x4x4", 64),
        ("v4-8", "v4:2x2x1", 4),
        ("v6e-8", "v6e:2x4", 8),
        ("tpu7x:2x2x1", "tpu7x:2x2x1", 8),
        ("h100:16", "h100:16", 16),
        ("rtx4090:1", "rtx4090:1", 1),
    ],
)
def test_names_of_slices(text, name, count):
    found = parse_topology(text)
    assert (found.name, found.count) == (name, count)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v5e", "is not understood; write GENERATION:SHAPE"),
        ("v9:4x4", "there is no 'v9'; choose one of v4, v5e, v5p, v6e"),
        ("v5e:3x5", "2 dimensions, the first two even"),
        ("v5p:4x4", "3 dimensions"),
        ("v6e-24", "no usual slice of v6e has 24 chips"),
        ("h100:12", "no whole number of nodes of 8"),
    ],
)
def test_slices_that_there_are_none_of(text, said):
    with pytest.raises(UserError, match=said):
        parse_topology(text)


@pytest.mark.parametrize(
    ("kind", "gigabytes"),
    [("TPU v4", 300 * 2), ("TPU v5e", 400), ("TPU v5p", 1200), ("TPU v6e", 800)],
)
def test_links_add_up_to_the_published_bandwidth_of_a_chip(kind, gigabytes):
    """Google's pages: of all links of a chip, both directions (v4: six of 50 GB/s each way)."""
    chip = CHIPS[kind]
    assert 2 * chip.torus * chip.link * 2 == gigabytes * 1e9


class Device:
    def __init__(self, *coords: int, slice_index: int = 0):
        self.coords, self.slice_index = coords, slice_index


def test_a_full_pod_has_rings_and_a_part_of_it_lines():
    chip = find_chip("TPU v5e")
    assert chip
    pod = Network(chip, [Device(y, x, 0) for y in range(16) for x in range(16)], (16, 16))
    part = Network(chip, [Device(y, x, 0) for y in range(4) for x in range(4)], (4, 4))
    assert pod.links(range(256)).bandwidth == 4 * 50e9
    assert pod.links(range(16)).bandwidth == 2 * 50e9
    assert part.links(range(16)).bandwidth == 2 * 50e9
    assert part.links(range(4)).bandwidth == 50e9
    gather = Exchange("all-gather", tuple(range(16)), ("fsdp",), 1e9)
    assert part.seconds(gather) == pytest.approx(0.01)


def test_slices_meet_over_the_wide_area_network():
    """Two slices of four chips: a pair across has one chip's share, all eight have four."""
    chip = find_chip("TPU v5p")
    assert chip
    places = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    devices = [Device(*place, slice_index=s) for s in (0, 1) for place in places]
    network = Network(chip, devices, (2, 2, 1))
    pair, everyone = network.links((0, 4)), network.links(range(8))
    assert (pair.network, pair.bandwidth) == ("dcn", 6.25e9)
    assert everyone.bandwidth == 25e9


def test_mesh_option_names_all_axes():
    assert mesh_overrides("fsdp=64,tensor=4") == (
        *("mesh.replica=1", "mesh.fsdp=64", "mesh.tensor=4", "mesh.sequence=1"),
    )
    with pytest.raises(UserError, match="write it as AXIS=SIZE"):
        mesh_overrides("data=4")


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            "Ran out of memory in memory space hbm. Used 20.10G of 15.75G hbm. Exceeded",
            ("20.10G", "15.75G"),
        ),
        (
            "the total memory required for HLO temporaries (600.00G) exceeds available HBM "
            "(15.75G).",
            ("600.00G", "15.75G"),
        ),
        ("something else", None),
    ],
)
def test_what_a_refusal_says(message, found):
    assert excess(message) == found
