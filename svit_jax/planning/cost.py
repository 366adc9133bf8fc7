"""What one instruction of a compiled program does: matrix products, and traffic with HBM."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from svit_jax.planning.hlo import Computation, Instruction, Module, Shape
from svit_jax.planning.kernels import PRODUCTS, splash_call

_FREE = frozenset(
    [
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "reshape"),
        *("partition-id", "replica-id", "after-all", "opt-barrier"),
        *("while", "conditional", "call"),
    ]
)
_PARTIAL = ("dynamic-slice", "slice", "gather")
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}
"""What changes a part of its first operand where it lies, and which operand that part is."""
MOVING = frozenset(
    f"{kind}-start" for kind in ("copy", "slice", "dynamic-slice", "dynamic-update-slice")
)
"""What goes on beside the core: an array or a slice, from one memory to another."""

_ALIKE = ("bitcast", "reshape", "copy", "convert", "transpose")


@dataclasses.dataclass(frozen=True)
class Product:
    """`flops` of a matrix product that sums over `summed` and has `columns` of outputs (the smaller
    of its two sides), which is how it fills a matrix unit."""

    flops: float
    summed: int
    columns: int


def products(module: Module, computation: Computation, each: Instruction) -> Iterator[Product]:
    """The matrix products of an instruction, those of a fusion's computation among them."""
    if each.opcode == "fusion":
        fused = module.fused(each)
        for inner in fused.instructions.values():
            yield from products(module, fused, inner)
    elif each.opcode == "dot":
        yield _dot(computation, each)
    elif each.opcode == "convolution":
        yield _convolution(computation, each)
    elif call := splash_call(computation, each):
        product = Product(call.product_flops, call.head_dim, call.queries)
        yield from [product] * PRODUCTS[call.kernel]


def _dot(computation: Computation, each: Instruction) -> Product:
    left, right = (computation.operand(each, place).shapes[0] for place in (0, 1))
    summed = math.prod(left.dims[axis] for axis in each.numbers("lhs_contracting_dims"))
    batch = math.prod(left.dims[axis] for axis in each.numbers("lhs_batch_dims"))
    rows = math.prod(left.dims) // max(1, summed * batch)
    columns = math.prod(right.dims) // max(1, summed * batch)
    return Product(2.0 * math.prod(each.shapes[0].dims) * summed, summed, min(rows, columns))


def _convolution(computation: Computation, each: Instruction) -> Product:
    """On TPUs every product is one: axes that are summed or that go along are its windows."""
    left, right = (computation.operand(each, place).shapes[0] for place in (0, 1))
    inputs, rest = (each.attribute("dim_labels") or "").split("_")
    kernel, outputs = rest.split("->")
    sizes = dict(zip(kernel, right.dims, strict=True))
    out = dict(zip(outputs, each.shapes[0].dims, strict=True))
    ins = dict(zip(inputs, left.dims, strict=True))
    pairs, summed = 1, sizes["i"]
    for axis, (low, stride, dilation, kernel_dilation) in enumerate(_window(each, len(sizes) - 2)):
        place = str(axis)
        met = _meetings(
            out[place], sizes[place], ins[place], low, stride, dilation, kernel_dilation
        )
        pairs *= met
        summed *= max(1, met // max(1, out[place]))
    groups = int(each.attribute("batch_group_count") or 1)
    flops = 2.0 * out["b"] * out["f"] * sizes["i"] * pairs / groups
    rows = out["b"] * math.prod(size for axis, size in out.items() if axis.isdigit())
    return Product(flops, summed, min(out["f"], rows))


def _window(each: Instruction, axes: int) -> list[tuple[int, int, int, int]]:
    """(padding before, stride, dilation of the input, of the kernel) of each axis."""
    text = each.attribute("window") or ""
    fields = dict(part.split("=") for part in text.strip("{}").split() if "=" in part)

    def numbers(name: str, default: str) -> list[int]:
        values = fields[name].split("x") if name in fields else [default] * axes
        return [int(value.split("_")[0]) for value in values]

    names = (("pad", "0_0"), ("stride", "1"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))
    return list(zip(*(numbers(*name) for name in names), strict=True))


def _meetings(
    out: int, kernel: int, size: int, low: int, stride: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs of an output place and a kernel place that meet an input number, not padding."""
    place = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * kernel_dilation - low
    inside = (place >= 0) & (place <= (size - 1) * dilation) & (place % dilation == 0)
    return int(inside.sum())


def traffic(module: Module, computation: Computation, each: Instruction) -> int:
    """Bytes that an instruction reads from HBM and writes there. Of an array that it takes a slice
    of, or changes a slice of in place, the slice counts."""
    if each.opcode in MOVING:
        return _moved(computation, each)
    if each.opcode in _FREE or each.opcode.endswith(("-start", "-done")):
        return 0
    if each.opcode == "fusion":
        return _fusion_traffic(module, computation, each)
    if each.opcode in _PARTIAL:
        return 2 * sum(map(in_memory, each.shapes))
    if each.opcode in _IN_PLACE:
        return 2 * in_memory(computation.operand(each, _IN_PLACE[each.opcode]).shapes[0])
    read = (computation.operand(each, place).shapes for place in range(len(each.operands)))
    return sum(in_memory(shape) for shapes in (*read, each.shapes) for shape in shapes)


def in_memory(shape: Shape) -> int:
    return shape.padded_bytes if shape.space == 0 else 0


def _moved(computation: Computation, each: Instruction) -> int:
    """What passes, once for each end that is HBM: the other end is on the chip, or the host's."""
    if each.opcode == "copy-start":
        ends = each.shapes[0], computation.operand(each, 0).shapes[0]
    elif each.opcode == "dynamic-update-slice-start":
        ends = computation.operand(each, 1).shapes[0], each.shapes[-2]
    else:
        ends = each.shapes[-2], computation.operand(each, 0).shapes[0]
    return ends[0].padded_bytes * sum(end.space == 0 for end in ends)


def _fusion_traffic(module: Module, computation: Computation, each: Instruction) -> int:
    fused = module.fused(each)
    total = 0
    for place, parameter in enumerate(fused.parameters):
        shapes = computation.operand(each, place).shapes
        if len(shapes) == 1 and shapes[0].space == 0:
            total += _read(module, fused, parameter, shapes[0].padded_bytes)
    return total + sum(_written(fused, fused.root, each.shapes))


def _read(module: Module, fused: Computation, value: Instruction, whole: int) -> int:
    """Of a fusion's parameter, or of what is like it: the slices that are taken, also by a fusion
    within the fusion, where nothing else is."""
    total = 0
    for user in fused.users.get(value.name, ()):
        first = user.operands[0] == value.name
        if user.opcode in _PARTIAL and first:
            total += user.shapes[0].bytes
        elif user.opcode in _ALIKE and user.shapes[0].bits == value.shapes[0].bits:
            total += _read(module, fused, user, whole)
        elif user.opcode == "fusion":
            inner = module.fused(user)
            for place, name in enumerate(user.operands):
                if name == value.name:
                    total += _read(module, inner, inner.parameters[place], whole)
        elif user.opcode in _IN_PLACE and first:
            continue
        else:
            return whole
    return min(total, whole)


def _written(fused: Computation, root: Instruction, shapes: tuple[Shape, ...]) -> Iterator[int]:
    """Of each result: the slice that changes where the array is changed in place."""
    roots = (
        [fused.operand(root, place) for place in range(len(root.operands))]
        if root.opcode == "tuple"
        else [root]
    )
    for result, shape in zip(roots, shapes, strict=False):
        while result.opcode in _ALIKE and result.operands:
            result = fused.operand(result, 0)
        if result.opcode in _IN_PLACE and shape.space == 0:
            yield fused.operand(result, _IN_PLACE[result.opcode]).shapes[0].bytes
        else:
            yield in_memory(shape)
