"""The accelerators that people train on: one table of what they can do, with its sources.

A `Chip` is what JAX lists as one device: on v4 a whole chip (megacore), on TPU7x one of a chip's
two cores, which share its memory and links, so its figures are halves. Sources, by letter:

a  docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}: peak, HBM, bidirectional ICI bandwidth a
   chip (over all of its links, both directions), DCN a chip or network cards a host, pod shape
b  "TPU v4: An Optically Reconfigurable Supercomputer" (arXiv 2304.01433): 6 links of 50 GB/s
c  NVIDIA's data sheets (SXM): dense bfloat16 peak, memory, NVLink of both directions together
d  NVIDIA DGX H100/H200 and A100 user guides: a network card of 400 (A100: 200) Gbit/s for each GPU
e  a matrix unit's side: 128, and 256 from v6e on (a; "TPU v6e", system architecture)
f  what XLA lets a program have ("Used ... of ...G hbm" when it does not fit): the nominal size less
   what the runtime and the firmware keep
g  NVIDIA Ada GPU architecture (white paper), GeForce RTX 4090: dense bfloat16 peak with float32
   sums, memory; 95% of it for a program, as of the others. It has PCIe 4.0 x16 and no NVLink; that
   machines of it have 10 Gbit/s between them is an assumption
"""

import dataclasses

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one device can do. Rates are a second's: `flops` dense bfloat16 operations, bytes
    otherwise. `usable_memory` is what a program can have of `memory`.

    `link` is one link's bandwidth in one direction, `torus` how many dimensions of links there are,
    and a dimension closes to a ring from `ring_from` chips on. GPUs have one switched network in a
    node of `node` devices (torus 0), and `link` is all of a GPU's bandwidth in one direction.
    `wide_area` is a device's share of its host's network in one direction (DCN, InfiniBand).
    `matrix_unit` is the side of the array that multiplies: sizes are filled up to it."""

    flops: float
    memory: int
    usable_memory: int
    memory_bandwidth: float
    link: float
    torus: int
    ring_from: int
    wide_area: float
    matrix_unit: int
    node: int = 0


_V4 = Chip(275e12, 32 * GIB, int(30.75 * GIB), 1228e9, 50e9, 3, 4, 6.25e9, 128)  # a b d e f
_V5E = Chip(197e12, 16 * GIB, int(15.75 * GIB), 819e9, 50e9, 2, 16, 3.125e9, 128)  # a e f
_V5P = Chip(459e12, 95 * GIB, int(95.74 * GIB), 2765e9, 100e9, 3, 4, 6.25e9, 128)  # a e f
_V6E = Chip(918e12, 32 * GIB, int(31.25 * GIB), 1638e9, 100e9, 2, 16, 12.5e9, 256)  # a e f
_V7X = Chip(1153.5e12, 96 * GIB, int(94.75 * GIB), 3690e9, 50e9, 3, 4, 6.25e9, 256)  # a e f
_A100 = Chip(312e12, 80 * GB, 76 * GB, 2039e9, 300e9, 0, 0, 25e9, 64, node=8)  # c d
_H100 = Chip(989e12, 80 * GB, 76 * GB, 3350e9, 450e9, 0, 0, 50e9, 64, node=8)  # c d
_H200 = Chip(989e12, 141 * GB, 134 * GB, 4800e9, 450e9, 0, 0, 50e9, 64, node=8)  # c d
_4090 = Chip(165.2e12, 24 * GIB, int(22.8 * GIB), 1008e9, 31.5e9, 0, 0, 1.25e9, 64, node=8)  # g

CHIPS = {
    "TPU v4": _V4,
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5p": _V5P,
    "TPU v5": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": _V7X,
    "NVIDIA A100": _A100,
    "NVIDIA H100": _H100,
    "NVIDIA H200": _H200,
    "NVIDIA GeForce RTX 4090": _4090,
}
"""By the beginning of a device's `device_kind`."""

_SLOWER = ("PCIe", "NVL", "Laptop", "4090 D")
"""Cards of the same names with other figures."""


def find_chip(device_kind: str) -> Chip | None:
    """The figures of one device; None where its kind is not known."""
    known = [name for name in CHIPS if device_kind.startswith(name)]
    if not known or any(word in device_kind for word in _SLOWER):
        return None
    return CHIPS[max(known, key=len)]
