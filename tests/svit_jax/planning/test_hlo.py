"""Compiled programs, read: against closed forms, and snippets of what XLA and libtpu wrote."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from svit_jax.chips import find_chip
from svit_jax.planning.cost import products, traffic
from svit_jax.planning.groups import exchange, group_axes, replica_group
from svit_jax.planning.hlo import Shape, parse
from svit_jax.planning.loops import trip_count
from svit_jax.planning.network import Network
from svit_jax.planning.roofline import walk

# A bidirectional ring's loop as libtpu writes it: no trip count, a counter that grows by two, and a
# kernel whose attributes span lines.
TPU_LOOP = """
HloModule jit_step, is_scheduled=true

%cond (p: (bf16[8,128], u32[])) -> pred[] {
  %constant.1 = u32[]{:T(128)} constant(8)
  %p = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) parameter(0)
  %get-tuple-element.1 = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %compare = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (q: (bf16[8,128], u32[])) -> (bf16[8,128], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %q = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/u32[]{:T(128)}) parameter(0)
  %x = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%q), index=0
  %collective-permute-start.1 = (bf16[8,128]{1,0}, bf16[8,128]{1,0}, u32[]{:S(2)}) \
collective-permute-start(%x), channel_id=5, source_target_pairs={{0,3},{1,0},{2,1},{3,2}}
  %kernel = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%x), frontend_attributes={metadata={
"a": "b"
}}, custom_call_target="tpu_custom_call"
  %collective-permute-done.1 = bf16[8,128]{1,0} collective-permute-done(\
%collective-permute-start.1)
  %i = u32[]{:T(128)} get-tuple-element(%q), index=1
  %add = u32[]{:T(128)} add(%i, %two)
  ROOT %tuple = (bf16[8,128]{1,0}, u32[]{:T(128)}) tuple(%collective-permute-done.1, %add)
}

ENTRY %main (a: bf16[8,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="state.trained[\\'w\\']"}
  %zero = u32[]{:T(128)} constant(0)
  %copy = u32[]{:T(128)} copy(%zero)
  %start = (bf16[8,128]{1,0}, u32[]{:T(128)}) tuple(%a, %copy)
  %while.1 = (bf16[8,128]{1,0}, u32[]{:T(128)}) while(%start), condition=%cond, body=%body
  ROOT %out = bf16[8,128]{1,0} get-tuple-element(%while.1), index=0
}
"""


# As libtpu writes a reduce-scatter: eight devices sum [16, 4096] and each keeps 512 columns.
TPU_SCATTER = """
HloModule jit_step, is_scheduled=true

%all-reduce-scatter (input: bf16[16,4096]) -> bf16[16,512] {
  %input = bf16[16,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[16,4096]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=1, \
replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%sum
  %zero = u32[] constant(0)
  %device = u32[] partition-id()
  %columns = u32[] constant(512)
  %first = u32[]{:T(128)} multiply(%device, %columns)
  ROOT %mine = bf16[16,512]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.1, %zero, %first), \
dynamic_slice_sizes={16,512}
}

ENTRY %main (a: bf16[16,4096]) -> bf16[16,512] {
  %a = bf16[16,4096]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %fusion = bf16[16,512]{1,0:T(8,128)(2,1)} fusion(%a), kind=kCustom, \
calls=%all-reduce-scatter
}
"""


def test_a_sum_of_which_a_device_keeps_its_slice_is_a_reduce_scatter():
    schedule = walk(parse(TPU_SCATTER), chip(), line_of(8), {"fsdp": 8})
    (found,) = schedule.collectives
    assert (found.kind, found.axes, found.count) == ("reduce-scatter", ("fsdp",), 1)
    assert found.bytes == 7 * 16 * 512 * 2  # all but its own piece, passed on once


def test_a_loop_is_counted_by_running_its_counter():
    module = parse(TPU_LOOP)
    assert set(module.computations) == {"cond", "body", "main"}
    assert len(module.computations["body"].instructions) == 9
    loop = module.entry.instructions["while.1"]
    assert trip_count(module, module.entry, loop, None) == 4
    assert module.entry.parameters[0].op_name == "state.trained['w']"
    (permute,) = walk(module, chip(), line_of(4), {"fsdp": 4}).collectives
    assert (permute.kind, permute.axes, permute.count) == ("collective-permute", ("fsdp",), 4)
    assert permute.bytes == 4 * 8 * 128 * 2


def chip():
    found = find_chip("TPU v5 lite")
    assert found
    return found


class Device:
    def __init__(self, *coords: int, slice_index: int = 0):
        self.coords, self.slice_index = [*coords, 0], slice_index


def line_of(count: int) -> Network:
    return Network(chip(), [Device(0, place) for place in range(count)], (1, count))


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        (Shape("f32", (5, 130), 0, (1, 0), (8, 128)), 8 * 256 * 4),
        (Shape("bf16", (5, 130), 0, (0, 1), (8, 128)), 136 * 128 * 2),
        (Shape("f32", (3, 7), 0, (1, 0), ()), 84),
        (Shape("s32", (), 0, (), (128,)), 512),
        (Shape("f32", (5,), 0, (0,), (8, 128)), 8 * 128 * 4),
    ],
)
def test_layouts_fill_whole_tiles(shape, padded):
    assert shape.padded_bytes == padded


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", (0, 1)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("replica_groups={}", tuple(range(8))),
    ],
)
def test_groups_of_devices_in_each_notation(text, group):
    line = f"  ROOT %r = f32[8]{{0}} all-reduce(%p), channel_id=1, {text}, to_apply=%add"
    module = parse(f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  %p = f32[8] parameter(0)\n{line}\n}}")
    assert replica_group(module.entry.root, 8) == group


def test_a_group_lies_along_the_axes_in_which_it_differs():
    mesh = {"replica": 2, "fsdp": 2, "tensor": 2, "sequence": 1}
    assert group_axes((0, 1), mesh) == ("tensor",)
    assert group_axes((0, 2, 4, 6), mesh) == ("replica", "fsdp")


SHORT = """
ENTRY %m (p: (f32[8], (s32[2], bf16[4]), u32[])) -> f32[2] {
  %p = (f32[8]{0:T(8,128)}, (s32[2], bf16[4]{0}), u32[]) parameter(0)
  %pair = (s32[2], bf16[4]{0}) copy(%p#1)
  %b = bf16[4]{0} copy(%pair#1)
  %slice-start.3 = ((f32[8]{0}), f32[2]{0:S(1)}, s32[]{:S(2)}) async-start(%p#0), calls=%sliced
  %slice-done.3 = f32[2]{0:S(1)} async-done(%slice-start.3)
  ROOT %sum = f32[2]{0:S(1)} add(%slice-done.3, %slice-done.3)
}
"""
SLICED = """
%sliced (a: f32[8]) -> f32[2] {
  %a = f32[8]{0} parameter(0)
  ROOT %slice.9 = f32[2]{0:S(1)} slice(%a), slice={[2:4]}
}
"""


def test_elements_and_asynchronous_slices_in_their_short_form():
    """JAX 0.12 writes %p#1 for the element of a tuple; a slice that goes on beside the core calls
    a computation that is it."""
    module = parse(SLICED + SHORT)
    found = module.entry.instructions
    assert found["p#0"].shapes == (Shape("f32", (8,), 0, (0,), (8, 128)),)
    assert (found["p#1"].is_tuple, found["p#1"].numbers("index")) == (True, (1,))
    assert [shape.dtype for shape in found["p#1"].shapes] == ["s32", "bf16"]
    assert found["b"].operands == ("pair#1",)
    assert (found["pair#1"].opcode, found["pair#1"].operands) == ("get-tuple-element", ("pair",))
    assert found["slice-start.3"].opcode == "slice-start"
    assert found["slice-done.3"].opcode == "slice-done"
    assert traffic(module, module.entry, found["slice-start.3"]) == 2 * 4


@pytest.mark.parametrize(
    ("source", "target", "passes"), [(0, 1, 1), (1, 0, 1), (0, 0, 2), (0, 5, 1), (5, 1, 0)]
)
def test_a_copy_passes_hbm_once_for_each_end_that_is_there(source, target, passes):
    here, there = (
        f"f32[16]{{0:S({space})}}" if space else "f32[16]{0}" for space in (source, target)
    )
    module = parse(f"""ENTRY %m (p: f32[16]) -> f32[16] {{
  %p = {here} parameter(0)
  %copy-start.1 = ({there}, {here}, u32[]{{:S(2)}}) copy-start(%p)
  ROOT %copy-done.1 = {there} copy-done(%copy-start.1)
}}""")
    moved = traffic(module, module.entry, module.entry.instructions["copy-start.1"])
    assert moved == passes * 64


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-gather", 3 * 32), ("all-reduce", 48), ("reduce-scatter", 24), ("all-to-all", 24)],
)
def test_bytes_that_a_device_sends_around_a_ring(kind, sent):
    """Of four devices with 32 bytes each."""
    line = f"%r = f32[8] {kind}(%p), replica_groups={{{{0,1,2,3}}}}"
    module = parse(f"ENTRY %m (p: f32[8]) -> f32[8] {{\n  %p = f32[8] parameter(0)\n  {line}\n}}")
    found = exchange(module.entry.instructions["r"], (Shape("f32", (8,)),), {"fsdp": 4})
    assert (found.bytes, found.axes) == (sent, ("fsdp",))


SCATTER = """
ENTRY %m (p: f32[8,4]) -> f32[2,4] {
  %p = f32[8,4] parameter(0)
  %zero = s32[] constant(0)
  %all-reduce.82 = f32[8,4] all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[2,4] dynamic-slice(%all-reduce.82, %zero, %zero), dynamic_slice_sizes={2,4}
}
"""


def test_a_sum_of_which_a_slice_is_taken_is_a_reduce_scatter():
    (found,) = walk(parse(SCATTER), chip(), line_of(4), {"fsdp": 4}).collectives
    assert (found.kind, found.bytes) == ("reduce-scatter", 8 * 4 * 4 * 3 // 4)


@pytest.mark.parametrize(
    ("labels", "left", "right", "out", "window", "flops"),
    [
        # TPUs write products so: plain, and over a head axis as a window, summed or carried along.
        ("bf_io->bf", "64,32", "32,16", "64,16", "", 2 * 64 * 32 * 16),
        ("b0f_0io->b0f", "2,5,32", "5,32,16", "2,1,16", "window={size=5}", 2 * 2 * 5 * 32 * 16),
        (
            "b0f_i0o->b0f",
            "2,1,32",
            "32,5,16",
            "2,5,16",
            "window={size=5 pad=4_4 rhs_reversal=1}",
            2 * 2 * 5 * 32 * 16,
        ),
        (
            "0bf_0io->0bf",
            "4,8,32",
            "4,32,16",
            "4,8,16",
            "window={size=4 stride=3 pad=0_0 lhs_dilate=4}",
            2 * 4 * 8 * 32 * 16,
        ),
    ],
)
def test_operations_of_convolutions(labels, left, right, out, window, flops):
    text = f"""ENTRY %m (a: f32[{left}], b: f32[{right}]) -> f32[{out}] {{
  %a = f32[{left}] parameter(0)
  %b = f32[{right}] parameter(1)
  ROOT %c = f32[{out}] convolution(%a, %b), {window and window + ", "}dim_labels={labels}
}}"""
    module = parse(text)
    (found,) = products(module, module.entry, module.entry.root)
    assert found.flops == flops


FUSED_SLICES = """
%fused (stack: bf16[40,128,256], at: s32[], new: bf16[1,128,256]) -> bf16[40,128,256] {
  %stack = bf16[40,128,256] parameter(0)
  %at = s32[] parameter(1)
  %new = bf16[1,128,256] parameter(2)
  ROOT %d = bf16[40,128,256] dynamic-update-slice(%stack, %new, %at, %at, %at)
}

ENTRY %m (s: bf16[40,128,256], i: s32[], x: bf16[1,128,256]) -> bf16[40,128,256] {
  %s = bf16[40,128,256] parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %x = bf16[1,128,256]{2,1,0:S(1)} parameter(2)
  ROOT %f = bf16[40,128,256] fusion(%s, %i, %x), kind=kLoop, calls=%fused
}
"""


def test_a_slice_written_in_place_moves_no_more_than_itself():
    """The new slice comes from on-chip memory, so that writing it is all the traffic."""
    module = parse(FUSED_SLICES)
    assert traffic(module, module.entry, module.entry.root) == 128 * 256 * 2


def test_a_scanned_layer_has_the_formulas_operations_and_bytes():
    """Eight layers of [64, 32] x [32, 32], weights split over four devices, rows over all eight:
    each layer gathers its weights once."""
    layers, rows, width = 8, 64, 32
    mesh = jax.make_mesh((2, 4), ("replica", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split, by_rows = P(None, "fsdp", None), P(("replica", "fsdp"), None)

    def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            w = jax.lax.with_sharding_constraint(w, NamedSharding(mesh, P()))
            return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, by_rows)), None

        return jax.lax.scan(layer, x, weights)[0].sum()

    weights = jax.ShapeDtypeStruct(
        (layers, width, width), jnp.float32, sharding=NamedSharding(mesh, split)
    )
    x = jax.ShapeDtypeStruct((rows, width), jnp.float32, sharding=NamedSharding(mesh, by_rows))
    compiled = jax.jit(loss).lower(weights, x).compile()
    places = [Device(y, z) for y in range(2) for z in range(4)]
    found = walk(
        parse(compiled.as_text()),
        chip(),
        Network(chip(), places, (2, 4)),
        {"replica": 2, "fsdp": 4},
    )
    assert found.flops == 2 * (rows // 8) * width * width * layers
    gathers = [row for row in found.collectives if row.kind == "all-gather"]
    assert [(row.axes, row.count) for row in gathers] == [(("fsdp",), layers)]
    assert gathers[0].bytes == layers * width * width * 4 * 3 // 4


NESTED = """
HloModule nested, is_scheduled=true

%inner (p0: bf16[40,128,256], p1: s32[]) -> bf16[128,256] {
  %p0 = bf16[40,128,256]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = bf16[1,128,256]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero)
  ROOT %layer = bf16[128,256]{1,0} bitcast(%slice)
}

%outer (q0: bf16[8,128], q1: bf16[40,128,256], q2: s32[]) -> bf16[8,256] {
  %q0 = bf16[8,128]{1,0} parameter(0)
  %q1 = bf16[40,128,256]{2,1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %weights = bf16[128,256]{1,0} fusion(%q1, %q2), kind=kLoop, calls=%inner
  ROOT %product = bf16[8,256]{1,0} convolution(%q0, %weights), dim_labels=bf_io->bf
}

ENTRY %main (x: bf16[8,128], w: bf16[40,128,256], n: s32[]) -> bf16[8,256] {
  %x = bf16[8,128]{1,0} parameter(0)
  %w = bf16[40,128,256]{2,1,0} parameter(1)
  %n = s32[] parameter(2)
  ROOT %y = bf16[8,256]{1,0} fusion(%x, %w, %n), kind=kOutput, calls=%outer
}
"""


def test_of_stacked_weights_a_product_reads_one_layer():
    """The slice is taken by a fusion within the product's fusion, as TPUs write a scanned layer."""
    module = parse(NESTED)
    expected = 2 * (8 * 128 + 128 * 256 + 8 * 256)
    assert abs(traffic(module, module.entry, module.entry.root) - expected) <= 4  # the index


SCATTERED_ROWS = """
HloModule scatter, is_scheduled=true

%put (old: bf16[64,128], new: bf16[128]) -> bf16[128] {
  %old = bf16[64,128]{1,0} parameter(0)
  ROOT %new = bf16[128]{0} parameter(1)
}

%fused (c: bf16[64,128], i: s32[2,1], u: bf16[2,128]) -> bf16[64,128] {
  %c = bf16[64,128]{1,0} parameter(0)
  %i = s32[2,1]{1,0} parameter(1)
  %u = bf16[2,128]{1,0} parameter(2)
  ROOT %s = bf16[64,128]{1,0} scatter(%c, %i, %u), update_window_dims={1}, to_apply=%put
}

ENTRY %main (cache: bf16[64,128], at: s32[2,1], rows: bf16[2,128]) -> bf16[64,128] {
  %cache = bf16[64,128]{1,0} parameter(0)
  %at = s32[2,1]{1,0} parameter(1)
  %rows = bf16[2,128]{1,0} parameter(2)
  ROOT %f = bf16[64,128]{1,0} fusion(%cache, %at, %rows), kind=kCustom, calls=%fused
}
"""


def test_a_scatter_writes_its_rows_alone():
    """As into a cache of keys, which is changed where it lies."""
    module = parse(SCATTERED_ROWS)
    rows, places = 2 * 128 * 2, 2 * 4
    assert traffic(module, module.entry, module.entry.root) == 2 * rows + places
