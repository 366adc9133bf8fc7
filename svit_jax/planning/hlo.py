"""The text of a compiled program, read: computations, instructions, shapes.

Only what a plan asks for is understood; everything else stays text. The grammar, by example:

    %fusion.7 = (f32[8,4]{1,0:T(8,128)S(1)}, s32[]) fusion(%a, %b), kind=kLoop, calls=%fused.2

a name, a shape or a tuple of them, an opcode, operands, attributes. `S(1)` is a memory space: none
is the device's main memory (HBM), 1 its on-chip memory (VMEM), others hold scalars and flags.
An operand `%fusion.7#1` (since JAX 0.12) is short for an instruction of its own:

    %fusion.7#1 = s32[] get-tuple-element(%fusion.7), index=1

An `async-start` that calls a computation is named after what that does (`slice-start`), and so is
its `async-done`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BYTES = {"pred": 1, "c64": 8, "c128": 16, "token": 0, "opaque": 0}


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's. `space` is its memory space (0: HBM), `order` its axes from minor to major and
    `tile` the first tile of its layout, which a TPU fills up with padding."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()

    @property
    def bits(self) -> int:
        if self.dtype in _BYTES:
            return 8 * _BYTES[self.dtype]
        found = re.match(r"[a-z]+(\d+)", self.dtype)
        return int(found[1]) if found else 8

    @property
    def bytes(self) -> int:
        """Of its numbers, without padding."""
        return math.prod(self.dims) * self.bits // 8

    @property
    def padded_bytes(self) -> int:
        """What it takes in memory: the minor axes are filled up to whole tiles."""
        sizes = [self.dims[axis] for axis in self.order] or list(self.dims[::-1])
        for place, tile in enumerate(reversed(self.tile)):
            if place < len(sizes):
                sizes[place] = -(-sizes[place] // tile) * tile
            else:
                sizes.append(tile)
        return math.prod(sizes) * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`shapes` are its result's arrays (several: a tuple); `attributes` what follows the operands,
    as text."""

    name: str
    shapes: tuple[Shape, ...]
    is_tuple: bool
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, name: str) -> str | None:
        """The text of `name=...`, up to the comma or space that ends it."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^,\s]+)", self.attributes)
        return found[1] if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", self.attribute(name) or ""))

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The computations that it runs: a fusion's, a loop's condition and body, branches."""
        pattern = (
            r"\b(?:calls|condition|body|true_computation|false_computation|to_apply)=%?([\w.\-]+)"
        )
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
        return (*re.findall(pattern, self.attributes), *names)

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1].replace("\\'", "'") if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they run where the text is scheduled."""

    name: str
    instructions: Mapping[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        found = [each for each in self.instructions.values() if each.opcode == "parameter"]
        return tuple(sorted(found, key=lambda each: int(each.literal)))

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        found: dict[str, list[Instruction]] = {}
        for each in self.instructions.values():
            for operand in dict.fromkeys(each.operands):
                found.setdefault(operand, []).append(each)
        return {name: tuple(users) for name, users in found.items()}

    def operand(self, instruction: Instruction, place: int) -> Instruction:
        return self.instructions[instruction.operands[place]]


@dataclasses.dataclass(frozen=True)
class Module:
    computations: Mapping[str, Computation]
    entry: Computation

    def fused(self, fusion: Instruction) -> Computation:
        return self.computations[fusion.called[0]]


_COMMENT = re.compile(r"/\*.*?\*/")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=?]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(?.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")


def parse(text: str) -> Module:
    """The module whose text `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry = name = ""
    found: dict[str, Instruction] = {}
    results: dict[str, str] = {}
    root = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and " -> " in line:
            name, found, root, results = header[2], {}, "", {}
            entry = name if header[1] else entry
        elif line.rstrip() == "}" and name:
            computations[name] = Computation(name, found, found[root or list(found)[-1]])
            name = ""
        elif name and (matched := _INSTRUCTION.match(line)):
            instruction = _instruction(matched[2], matched[3])
            for operand in instruction.operands:
                if "#" in operand and operand not in found:
                    found[operand] = _element(operand, results)
            if instruction.opcode in ("async-start", "async-done"):
                opcode = _started(instruction, found, computations)
                instruction = dataclasses.replace(instruction, opcode=opcode)
            found[instruction.name] = instruction
            results[instruction.name] = matched[3]
            root = instruction.name if matched[1] else root
    return Module(computations, computations[entry or list(computations)[-1]])


def _instruction(name: str, text: str) -> Instruction:
    is_tuple = text.startswith("(")
    end = _closing(text, 0) + 1 if is_tuple else text.index(" ")
    shapes = tuple(_shapes(_COMMENT.sub("", text[:end])))
    rest = text[end:].lstrip()
    start = rest.index("(")
    stop = _closing(rest, start)
    inside = _COMMENT.sub("", rest[start + 1 : stop])
    opcode = rest[:start]
    operands: tuple[str, ...] = ()
    if opcode not in ("constant", "parameter", "iota"):
        operands = tuple(
            re.findall(r"%([\w.\-]+(?:#\d+)?)", inside) or re.findall(r"[\w.\-]+", inside)
        )
    return Instruction(name, shapes, is_tuple, opcode, operands, inside, rest[stop + 1 :])


def _started(
    each: Instruction, found: Mapping[str, Instruction], known: Mapping[str, Computation]
) -> str:
    """The opcode of an `async-start` or `async-done`, after what the start calls."""
    if each.opcode == "async-done":
        return found[each.operands[0]].opcode.removesuffix("-start") + "-done"
    called = [known[name] for name in each.called if name in known]
    return f"{called[0].root.opcode}-start" if called else each.opcode


def _element(operand: str, results: Mapping[str, str]) -> Instruction:
    """The get-tuple-element that an operand `%name#index` stands for."""
    of, _, index = operand.partition("#")
    text = _COMMENT.sub("", results[of])
    depth, starts = 0, []
    for place, letter in enumerate(text[: _closing(text, 0) + 1]):
        if (depth == 1 and letter == ",") or place == 0:
            starts.append(place + 1)
        depth += (letter in "([{") - (letter in ")]}")
    starts.append(_closing(text, 0) + 1)
    first, last = starts[int(index)], starts[int(index) + 1] - 1
    element = f"{text[first:last].strip()} get-tuple-element(%{of}), index={index}"
    return _instruction(operand, element)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    raise ValueError(f"unbalanced parentheses: {text[:100]}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _SHAPE.findall(text):
        order, _, more = layout.partition(":")
        space = re.search(r"S\((\d+)\)", more)
        tile = re.search(r"T\(([\d,]+)\)", more)
        yield Shape(
            dtype,
            tuple(int(n) for n in re.findall(r"\d+", dims)),
            int(space[1]) if space else 0,
            tuple(int(n) for n in re.findall(r"\d+", order)),
            tuple(int(n) for n in tile[1].split(",")) if tile else (),
        )
