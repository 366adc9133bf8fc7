"""What a TPU's core makes of products and of splash attention, by libtpu's own schedules.

Of attention's kernels a program's text shows names and operands alone. A core takes one bundle of
instructions a cycle, and attention has more to do for a score than to multiply: segments, the mask,
the softmax. `BUNDLES` are counted in the kernels' compiled schedules. A core that waits for a
product takes more cycles than it has bundles, so a kernel takes the longer of its products and its
bundles. `benchmarks/plan_kernels.py` asks libtpu for all numbers here (0.0.42.1).
"""

import dataclasses
import math
import re
from collections.abc import Iterable

from svit_jax.chips import CHIPS, Chip
from svit_jax.planning.hlo import Computation, Instruction

MATRIX_SHARE = 0.92
"""Of the peak: what large products reach where nothing else holds them up, in the mean."""

_CRAMPED = {CHIPS["TPU v6e"]: 0.76, CHIPS["TPU7x"]: 0.83}
_ROOM = re.compile(r"(?:tpu:)?xla_tpu_scoped_vmem_limit_kib=(\d+)")
_ROOMY = 98304

PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
"""Of 2 B N T S H operations each, by the kernels' definition: scores and values forward; scores,
the probabilities' gradient and the queries' for dq; those two and the keys' and values' for dkv."""


@dataclasses.dataclass(frozen=True)
class Bundles:
    """Of a kernel whose blocks have `scores` scores: `block` for one in which some query sees a
    key, `step` for any of the grid, `row` before and after all blocks of a row of them."""

    block: int
    step: int
    row: int
    scores: int


def _table(size: int, *counts: tuple[int, int, int]) -> dict[str, Bundles]:
    return {
        kernel: Bundles(*count, size * size) for kernel, count in zip(PRODUCTS, counts, strict=True)
    }


BUNDLES: dict[Chip, dict[int, dict[str, Bundles]]] = {
    CHIPS["TPU v4"]: {
        128: _table(512, (1713, 424, 981), (1938, 428, 181), (2691, 560, 373)),
        64: _table(640, (2916, 1353, 0), (2881, 416, 0), (3438, 683, 0)),
    },
    CHIPS["TPU v5e"]: {
        128: _table(512, (1191, 73, 696), (1469, 74, 170), (1843, 135, 332)),
        64: _table(640, (2003, 1000, 0), (2318, 262, 0), (3022, 586, 0)),
    },
    CHIPS["TPU v5p"]: {
        128: _table(512, (1163, 212, 699), (1488, 163, 170), (1873, 238, 332)),
        64: _table(640, (1992, 784, 0), (2376, 285, 0), (2932, 589, 0)),
    },
    CHIPS["TPU v6e"]: {
        128: _table(512, (937, 90, 346), (1087, 82, 91), (1317, 161, 171)),
        64: _table(640, (1592, 467, 0), (1561, 122, 0), (1831, 248, 0)),
    },
    CHIPS["TPU7x"]: {
        128: _table(512, (933, 108, 317), (1053, 87, 66), (1303, 179, 159)),
        64: _table(640, (1830, 477, 0), (1579, 124, 0), (1866, 254, 0)),
    },
}
"""By chip and numbers of a head."""


def matrix_share(chip: Chip, compiler_options: Iterable[str]) -> float:
    """The share of the peak that large products reach: on chips with matrix units of 256 libtpu
    gets less out of them unless it is given more on-chip memory than by default."""
    rooms = (int(found[1]) for each in compiler_options if (found := _ROOM.fullmatch(each)))
    return MATRIX_SHARE if max(rooms, default=0) >= _ROOMY else _CRAMPED.get(chip, MATRIX_SHARE)


@dataclasses.dataclass(frozen=True)
class SplashCall:
    """One call of a kernel: `heads` of all rows, `queries` and `keys` of each of them, in a grid of
    (queries, keys) blocks, of which the share `seen` is looked at."""

    kernel: str
    heads: int
    queries: int
    keys: int
    head_dim: int
    grid: tuple[int, int]
    seen: float

    @property
    def product_flops(self) -> float:
        """Of one of the kernel's products."""
        return 2.0 * self.heads * self.queries * self.keys * self.head_dim * self.seen

    def core_seconds(self, chip: Chip) -> float:
        """How long the kernel's bundles take; 0 for a chip of which they are not known.

        A core's matrix units make 8 side² operations a cycle, on every generation (v5e: four of
        128 x 128 at 1.5 GHz), which gives the cycles a second of a chip's cores together."""
        known = BUNDLES.get(chip)
        if known is None:
            return 0.0
        bundles = known[128 if self.head_dim > 64 else 64][self.kernel]
        across, along = self.grid
        blocks = self.heads * across * along
        size = self.queries // across * (self.keys // along) / bundles.scores
        wide = max(1.0, self.head_dim / 128)
        block = bundles.block * size * wide * self.seen
        cycles = blocks * (block + bundles.step) + self.heads * across * bundles.row
        return cycles * 8 * chip.matrix_unit**2 / chip.flops


def splash_call(computation: Computation, each: Instruction) -> SplashCall | None:
    """The call that an instruction makes; None for any other instruction."""
    if each.opcode != "custom-call" or not each.name.startswith("splash_mha_"):
        return None
    kernel = next((k for k in PRODUCTS if each.name.startswith(f"splash_mha_{k}")), None)
    if kernel is None:
        return None
    operands = [computation.operand(each, place).shapes[0] for place in range(len(each.operands))]
    mask = next(shape for shape in operands if shape.dtype == "s8")
    queries, keys = [shape for shape in operands if shape.dtype in ("bf16", "f32")][:2]
    *rows, length, head_dim = queries.dims
    grid = mask.dims[-2], mask.dims[-1]
    # A mask of one block is looked at whole; of several, ours is causal (`attention_splash`).
    seen = 1.0 if math.prod(grid) == 1 else (1 + 1 / max(grid)) / 2
    return SplashCall(kernel, math.prod(rows), length, keys.dims[-2], head_dim, grid, seen)
