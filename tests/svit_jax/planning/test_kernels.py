"""Splash attention's time: against a count by hand, and what the compiler's schedules say."""

import dataclasses
import json
from pathlib import Path

import pytest

from svit_jax.chips import find_chip
from svit_jax.planning.cost import products
from svit_jax.planning.hlo import parse
from svit_jax.planning.kernels import BUNDLES, matrix_share, splash_call
from svit_jax.planning.network import Network
from svit_jax.planning.roofline import walk
from svit_jax.planning.topology import parse_topology

MEASURED = Path(__file__).parents[3] / "benchmarks/results/plan_kernels.json"

# Two rows of four heads, 1024 tokens in blocks of 512: three of four blocks have keys to see.
CALL = """
HloModule jit_step, is_scheduled=true

ENTRY %m (q: bf16[2,4,1024,128]) -> bf16[2,4,1024,128] {
  %q = bf16[2,4,1024,128]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %k = bf16[2,4,1024,128]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %mask = s8[1,2,2]{2,1,0:S(1)} parameter(2)
  ROOT %splash_mha_dq_segmented.1 = bf16[2,4,1024,128]{3,2,1,0:T(8,128)(2,1)S(1)} \
custom-call(%mask, %q, %k), custom_call_target="tpu_custom_call"
}
"""
SEEN = 8 * 3  # blocks


def seconds_on(name: str) -> float:
    chip = parse_topology(name).chip
    network = Network(chip, [], (2, 2))
    return walk(parse(CALL), chip, network, {"fsdp": 1}).seconds


def test_a_kernel_takes_as_long_as_its_bundles_where_they_are_more():
    """v6e: 918e12 operations a second are 1.751e9 cycles of 8 x 256 x 256."""
    bundles = SEEN * 1087 + 8 * 4 * 82 + 8 * 2 * 91
    cycles_a_second = 918e12 / (8 * 256 * 256)
    assert seconds_on("v6e:2x2") == pytest.approx(bundles / cycles_a_second)


def test_a_chip_of_which_no_schedule_is_known_has_the_products_alone():
    unknown = dataclasses.replace(find_chip("TPU v6e"), memory=1)
    module = parse(CALL)
    call = splash_call(module.entry, module.entry.root)
    assert call.core_seconds(unknown) == 0
    seconds = walk(module, unknown, Network(unknown, [], (2, 2)), {"fsdp": 1}).seconds
    half_filled = 2  # heads of 128 in a matrix unit of 256
    flops = SEEN * 3 * 2 * 512 * 512 * 128 * half_filled
    assert seconds == pytest.approx(flops / (918e12 * matrix_share(unknown, ())))


def test_operations_of_a_kernel_are_its_definitions():
    module = parse(CALL)
    found = list(products(module, module.entry, module.entry.root))
    assert [product.flops for product in found] == [SEEN * 2 * 512 * 512 * 128] * 3


def test_other_instructions_are_no_kernels():
    module = parse(CALL)
    assert splash_call(module.entry, module.entry.instructions["q"]) is None


KINDS = {
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
    "tpu7x": "TPU7x",
}


@pytest.mark.parametrize("generation", KINDS)
def test_the_table_is_what_the_compiler_was_asked_for(generation):
    measured = json.loads(MEASURED.read_text())
    known = BUNDLES[find_chip(KINDS[generation])]
    for head_dim, what in ((128, "decoder"), (64, "tower")):
        for kernel, counts in measured["bundles"][generation][what].items():
            found = known[head_dim][kernel]
            assert (found.block, found.step, found.row) == tuple(counts.values())


def test_the_share_of_the_peak_is_what_the_compiler_gives_in_the_mean():
    for name, share in json.loads(MEASURED.read_text())["mean_share"].items():
        generation, _, option = name.partition(", ")
        assumed = matrix_share(find_chip(KINDS[generation]), (option,) if option else ())
        assert assumed == pytest.approx(share, abs=0.02), name
