"""Where a program's temporaries lie, and when: the buffer assignment that libtpu dumps."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.common.errors import UserError

Index = tuple[int, ...]
"""Which of a tuple's arrays; () for one that is no tuple's."""

_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (?:page \d+, )?(.*):$")
_TEMPORARIES = re.compile(r"^allocation (?!.*color).*preallocated-temp", re.MULTILINE)
_VALUE = re.compile(
    r"^ value: <\d+ ([^\s{]+)(?:\{([\d,]*)\})?(?: \(phi\))? @0> \(size=(\d+),offset=(\d+)\): "
    r"(?:(\w+)\[([\d,]*)\])?"
)
_RANGE = re.compile(r"^    ([^\s{]+)\{([\d,]*)\}:(\d+)-(\d+)$")
_PLACE = re.compile(r"^    (\d+):(\S+)$")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Bytes [offset, offset + size) of the temporaries' block, which hold the result of the
    instruction `name` while the program's places `first` to `last` run: an array of so many
    `elements`, or the table of a tuple, which has none."""

    name: str
    index: Index
    offset: int
    size: int
    first: int
    last: int
    dtype: str
    elements: int


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The temporaries in HBM: one `block` of bytes, the buffers in it, and the place of each
    instruction in the schedule, in which bodies of loops and branches stand where they run."""

    block: int
    buffers: tuple[Buffer, ...]
    places: Mapping[str, int]

    def peak(self) -> list[tuple[Buffer, int]]:
        """What is there when most bytes are in use, each with its bytes.

        Values that share bytes (what a loop takes, changes and gives) count once.
        """
        best: list[tuple[Buffer, int]] = []
        most = -1
        for moment in sorted({buffer.first for buffer in self.buffers}):
            found = _disjoint([b for b in self.buffers if b.first <= moment <= b.last])
            if (total := sum(size for _, size in found)) > most:
                best, most = found, total
        return best


def _disjoint(buffers: list[Buffer]) -> list[tuple[Buffer, int]]:
    """Each with the bytes that none before it holds."""
    found, covered = [], 0
    for buffer in sorted(buffers, key=lambda b: (b.offset, -b.size, -b.last)):
        end = buffer.offset + buffer.size
        if end > covered:
            found.append((buffer, end - max(buffer.offset, covered)))
            covered = end
    return found


def assignment_is_written(folder: Path) -> bool:
    """Whether libtpu, dumping into a folder, has come past the assignment: this file is the last of
    those that it writes of it."""
    return any(folder.glob("*.after_optimizations_after_buffer_assignment.txt"))


def read_assignment(folder: Path) -> Assignment | None:
    """The assignment that was dumped into a folder (`xla_dump_to`); None where there is none."""
    assigned = sorted(folder.glob("*-buffer-assignment.txt"))
    ranges = sorted(folder.glob("*-live-range.txt"))
    if len(assigned) != 1 or len(ranges) != 1:
        return None
    return parse_assignment(assigned[0].read_text(), ranges[0].read_text())


def parse_assignment(assigned: str, ranges: str) -> Assignment:
    """The assignment of the two texts: who has which bytes, and when. Raises UserError for texts
    with temporaries that can't be read."""
    places, times = {}, {}
    for line in ranges.splitlines():
        if found := _RANGE.match(line):
            times[found[1], _index(found[2])] = int(found[3]), int(found[4])
        elif found := _PLACE.match(line):
            places[found[2]] = int(found[1])
    buffers = []
    block, temporary = 0, False
    for line in assigned.splitlines():
        if found := _ALLOCATION.match(line):
            temporary = found[2] == "preallocated-temp"  # of another memory: "color 1, ..."
            block += int(found[1]) * temporary
        elif temporary and (found := _VALUE.match(line)):
            name, index = found[1], _index(found[2] or "")
            if (name, index) in times:
                first, last = times[name, index]
                elements = math.prod(_index(found[6])) if found[5] else 0
                offset, size = int(found[4]), int(found[3])
                buffers.append(
                    Buffer(name, index, offset, size, first, last, found[5] or "", elements)
                )
    if not block and _TEMPORARIES.search(assigned):
        raise UserError(
            "this libtpu writes its buffer assignment in a form that svit plan can't read: install "
            "the libtpu that jax's extra 'tpu' names."
        )
    return Assignment(block, tuple(buffers), places)


def _index(text: str) -> Index:
    return tuple(int(number) for number in text.split(",") if number)
