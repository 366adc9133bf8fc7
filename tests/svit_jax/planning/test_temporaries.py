"""Temporaries by kind, of a program written by hand in the compiler's notation (two_layers.hlo).

A loop over two layers keeps a row of each (`kept`); the backward pass reads them and makes the
gradient of [2, 16, 16] weights, of which a gathered copy lies beside.
"""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.planning.buffers import (
    Assignment,
    Buffer,
    assignment_is_written,
    parse_assignment,
)
from svit_jax.planning.hlo import parse
from svit_jax.planning.memory import plan_memory, step_memory
from svit_jax.planning.origins import Origins
from svit_jax.planning.temporaries import parameter_sizes, temporary_parts

PROGRAM = Path(__file__).with_name("two_layers.hlo").read_text()
ASSIGNED = """BufferAssignment:
allocation 0: size 2048, parameter 0, shape |f32[2,16,16]| at ShapeIndex {}:
 value: <0 weights @0> (size=2048,offset=0): f32[2,16,16]{2,1,0}
allocation 1: size 8192, preallocated-temp:
 value: <1 half.1 @0> (size=512,offset=0): bf16[16,16]{1,0}
 value: <2 copied{0} @0> (size=512,offset=512): bf16[16,16]{1,0}
 value: <3 empty @0> (size=512,offset=1024): bf16[2,8,16]{2,1,0}
 value: <4 carried{2} (phi) @0> (size=512,offset=1024): bf16[2,8,16]{2,1,0}
 value: <5 filled @0> (size=512,offset=1024): bf16[2,8,16]{2,1,0}
 value: <6 loop{2} (phi) @0> (size=512,offset=1024): bf16[2,8,16]{2,1,0}
 value: <7 layer @0> (size=64,offset=2048): f32[2,8]{1,0}
 value: <8 loss @0> (size=2048,offset=4096): f32[2,16,16]{2,1,0}
 value: <9 back @0> (size=64,offset=2048): f32[2,8]{1,0}
 value: <10 loop{} (phi) @0> (size=32,offset=2112): (s32[], f32[2,8]{1,0})
allocation 2: size 4096, color 1, preallocated-temp:
 value: <11 back.1 @0> (size=4096,offset=0): f32[2,8]{1,0:S(1)}
"""
RANGES = """HloLiveRange (max 14):
  InstructionSequence:
    0:weights
    1:half.1
    2:copied
    3:empty
    4:carried
    5:layer
    6:filled
    7:given
    8:loop
    9:summed
    10:loss
    11:back
    12:back.1
    13:new
  BufferLiveRange:
    half.1{}:1-12
    copied{0}:2-12
    empty{}:3-4
    carried{2}:4-6
    filled{}:6-8
    loop{2}:8-11
    loop{}:8-9
    layer{}:5-7
    loss{}:10-13
    back{}:11-12
    back.1{}:12-13
  Live ranges at 10 (peak):
    half.1{}: 512 bytes (cumulative: 512 bytes)
"""


@pytest.fixture
def assignment() -> Assignment:
    return parse_assignment(ASSIGNED, RANGES)


@pytest.fixture
def origins() -> Origins:
    return Origins(parse(PROGRAM))


def test_the_dump_is_read(assignment):
    assert assignment.block == 8192 and len(assignment.buffers) == 10
    assert assignment.buffers[1] == Buffer("copied", (0,), 512, 512, 2, 12, "bf16", 256)
    assert assignment.places["given"] == 7 and len(assignment.places) == 14


def test_the_dump_of_a_later_libtpu_is_read_too(assignment):
    """Since 0.0.50 allocations have a page, behind the color where they have one."""
    later = ASSIGNED.replace(", preallocated", ", page 0, preallocated")
    later = later.replace(", parameter 0", ", page 0, parameter 0")
    assert parse_assignment(later, RANGES) == assignment


def test_temporaries_that_cannot_be_read_are_an_error():
    with pytest.raises(UserError, match="form that svit plan can't read"):
        parse_assignment(
            ASSIGNED.replace("size 8192, pre", "size 8192, something new, pre"), RANGES
        )


def test_the_peak_is_when_most_bytes_are_in_use(assignment):
    """Counted byte by byte at every place."""
    used = [
        len(
            {
                byte
                for b in assignment.buffers
                if b.first <= place <= b.last
                for byte in range(b.offset, b.offset + b.size)
            }
        )
        for place in range(14)
    ]
    found = assignment.peak()
    assert sum(size for _, size in found) == max(used) == 512 + 512 + 512 + 2048 + 64
    assert {buffer.name for buffer, _ in found} == {"half.1", "copied", "loop", "loss", "back"}


def test_values_that_share_bytes_count_once():
    pairs = [Buffer("a", (), 0, 100, 0, 9, "f32", 25), Buffer("b", (), 60, 100, 0, 9, "f32", 25)]
    for order in itertools.permutations(pairs):
        found = Assignment(200, order, {}).peak()
        assert sum(size for _, size in found) == 160


@pytest.mark.parametrize(
    ("value", "maker"),
    [
        (("loop", (2,)), "filled"),  # what the body writes, through its copy
        (("carried", (2,)), "filled"),
        (("loop", (3,)), "half.1"),  # what the body hands on
        (("loop", (1,)), "layer"),
        (("copied", (0,)), "half.1"),
        (("loss", ()), "summed"),  # of the branch that does not only hand on
        (("weights", ()), "weights"),
    ],
)
def test_who_makes_a_value(origins, value, maker):
    assert origins.maker(*value).name == maker


def test_copies_of_arguments_are_known_from_what_is_computed(origins):
    for name, index in (("half.1", ()), ("copied", (0,)), ("loop", (3,))):
        assert origins.copied(name, index).op_name == "state.trained['w']"
    assert origins.copied("back", ()) is None and origins.copied("loop", (2,)) is None


def test_every_kind_at_the_peak(assignment):
    """At place 11: two copies of a layer's weights in bfloat16, what the loop kept of two rows for
    the backward pass, the gradient that the loss made; not what the backward pass works on."""
    sizes = [parameter_sizes((2, 16, 16), (2, 16, 16))]
    known = {
        "copies of weights": 2 * 16 * 16 * 2,
        "activations": 2 * 8 * 16 * 2,
        "gradients": 2 * 16 * 16 * 4,
    }
    rest = {"temporaries": 8192 - sum(known.values())}
    assert temporary_parts(assignment, parse(PROGRAM), sizes) == known | rest


def test_sizes_of_a_parameter_with_layers():
    """[40, 512, 128], of which a device has 64 of 512: whole or cut, all layers or one."""
    assert set(parameter_sizes((40, 512, 128), (40, 64, 128))) == {
        *(40 * 512 * 128, 40 * 64 * 128),
        *(512 * 128, 64 * 128),
    }


def test_a_step_needs_its_arguments_and_its_block():
    """2,048 bytes of weights, 64 of the batch; the code where it was made."""
    kinds = {"gradients": 2048, "temporaries": 6144}
    memory = step_memory(parse(PROGRAM), 2048 + 64 + 8192 - 1, kinds)
    assert dict(memory.parts) == {"weights": 2048, "batch": 64, **kinds}
    assert memory.total == 2048 + 64 + 8192 and not memory.fits
    memory = step_memory(parse(PROGRAM), 20_000, kinds, code_bytes=500)
    assert memory.parts["program"] == 500
    assert memory.total == 2048 + 64 + 8192 + 500 and memory.fits


def test_jaxs_figures_of_a_program_add_up():
    sizes = {"argument": 2176, "output": 2112, "alias": 2048, "temp": 9000, "generated_code": 500}
    figures = SimpleNamespace(**{f"{name}_size_in_bytes": size for name, size in sizes.items()})
    compiled = SimpleNamespace(memory_analysis=lambda: figures)
    memory = plan_memory(compiled, parse(PROGRAM), 10_000)
    assert dict(memory.parts) == {
        "weights": 2048,
        "batch": 64,
        "padding": 64,
        "outputs": 64,
        "temporaries": 9000,
        "program": 500,
    }
    assert memory.total == 2176 + 64 + 9000 + 500


def test_the_dump_of_an_assignment_is_whole_with_its_last_file(tmp_path):
    begun = ("jit_step.after_optimizations-buffer-assignment.txt", "jit_step.debug_options")
    for name in begun:
        (tmp_path / name).touch()
    assert not assignment_is_written(tmp_path)
    (tmp_path / "jit_step.after_optimizations_after_buffer_assignment.txt").touch()
    assert assignment_is_written(tmp_path)
