"""Collectives of a compiled program: which mesh axes they run along, and the bytes they send."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from svit_jax.planning.hlo import Instruction, Shape, parse

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


def count_collectives(text: str) -> dict[str, int]:
    """How many instructions of each kind stand in the text of a compiled program
    (`compiled.as_text()`). One in a loop's body, such as a scanned layer's, counts once."""
    computations = parse(text).computations.values()
    found = Counter(
        each.opcode.removesuffix("-start")
        for computation in computations
        for each in computation.instructions.values()
    )
    return {kind: found[kind] for kind in KINDS}


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One collective: its kind, the devices of one group by their place in the mesh, and the bytes
    that each device sends. `step` is how far a permute's neighbours are apart along its axis (-1
    and 1: one link), 0 for other kinds."""

    kind: str
    group: tuple[int, ...]
    axes: tuple[str, ...]
    bytes: float
    step: int = 0


def exchange(
    each: Instruction,
    operands: tuple[Shape, ...],
    mesh: Mapping[str, int],
    users: tuple[Instruction, ...] = (),
) -> Exchange:
    """What a collective instruction does on a mesh with these axes; `operands` are its inputs. An
    all-reduce of which its users take a slice alone is how TPUs write a reduce-scatter."""
    kind = each.opcode.removesuffix("-start")
    if kind == "all-reduce" and users and all(x.opcode == "dynamic-slice" for x in users):
        kind = "reduce-scatter"
    if kind == "collective-permute":
        pairs = _pairs(each)
        sent = float(operands[0].bytes)
        axes, step = _permuted(pairs, mesh)
        moving = [pair for pair in pairs if pair[0] != pair[1]]
        return Exchange(kind, tuple(sorted({s for p in moving for s in p})), axes, sent, step)
    group = replica_group(each, math.prod(mesh.values()))
    size = len(group)
    given = sum(shape.bytes for shape in operands)
    # Around a ring every device passes on all pieces but one (Thakur et al. 2005).
    pieces = {
        "all-gather": given * (size - 1),
        "reduce-scatter": given * (size - 1) / size,
        "all-reduce": 2 * given * (size - 1) / size,
        "all-to-all": given * (size - 1) / size,
    }
    return Exchange(kind, group, group_axes(group, mesh), float(pieces[kind]))


def replica_group(each: Instruction, devices: int) -> tuple[int, ...]:
    """The first of its groups of devices, in any of XLA's three ways to write them."""
    text = each.attributes
    found = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:,? ?device_ids=\((?:\[([\d,]+)\])?"
        r"(?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}",
        text,
    )
    if found:
        return _mesh_group(found[1], found[4], _order(found[2], found[3], devices))
    found = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if found:
        size = int(found[1].split(",")[-1])
        return tuple(_order(found[2], found[3], devices)[:size].tolist())
    found = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if found and found[1]:
        return tuple(map(int, found[1].split(",")))
    return tuple(range(devices))


def _order(sizes: str | None, axes: str | None, devices: int) -> np.ndarray:
    """Devices counted through an array of these sizes, its axes exchanged: `[2,4]T(1,0)`."""
    shape = tuple(map(int, sizes.split(","))) if sizes else (devices,)
    order = tuple(map(int, axes.split(","))) if axes else tuple(range(len(shape)))
    return np.arange(math.prod(shape)).reshape(shape).transpose(order).reshape(-1)


def _mesh_group(sizes: str, axes: str, order: np.ndarray) -> tuple[int, ...]:
    """Of `mesh['a'=2,'b'=4] {'b'}`: devices in this order as an a x b grid, cut into groups of axis
    b. `'b':(2)2` is a part of an axis: of size 2, where pieces before it make 2."""
    named = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    sizes_in_order = tuple(named.values())
    ids = order[: math.prod(sizes_in_order)].reshape(sizes_in_order)
    moving: dict[str, tuple[int, int]] = {}
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        moving[name] = (int(before or 1), int(size or named[name]))
    chosen = []
    for name, whole in named.items():
        before, size = moving.get(name, (1, 1))
        after = whole // (before * size)
        chosen.append([place * after for place in range(size)])
    return tuple(int(ids[index]) for index in itertools.product(*chosen))


def group_axes(group: tuple[int, ...], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which a group's devices differ."""
    places = np.stack(np.unravel_index(np.array(group), tuple(mesh.values())))
    return tuple(
        name for name, along in zip(mesh, places, strict=True) if len(set(along.tolist())) > 1
    )


def _pairs(each: Instruction) -> list[tuple[int, int]]:
    found = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", each.attributes)
    return [
        (int(source), int(target))
        for source, target in re.findall(r"\{(\d+),(\d+)\}", found[1] if found else "")
    ]


def _permuted(pairs: list[tuple[int, int]], mesh: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """The axes that a permutation moves along, and by how much where it is one: the shorter way
    around."""
    sizes = tuple(mesh.values())
    if not pairs:
        return (), 0
    sources, targets = (
        np.stack(np.unravel_index(np.array(ids), sizes)) for ids in zip(*pairs, strict=True)
    )
    moved = [name for name, s, t in zip(mesh, sources, targets, strict=True) if (s != t).any()]
    if len(moved) != 1:
        return tuple(moved), 0
    place, size = list(mesh).index(moved[0]), mesh[moved[0]]
    steps = (targets[place] - sources[place]) % size
    step = int(np.bincount(steps).argmax())
    return tuple(moved), step if step <= size // 2 else step - size
