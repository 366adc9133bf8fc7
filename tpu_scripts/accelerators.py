"""What gcloud's accelerator types are: chips, hosts, runtime, GKE's names, and a chip's price."""

import dataclasses

from data_pipeline.common.errors import UserError

PRICES = {"v4": 3.22, "v5e": 1.20, "v5p": 4.20, "v6e": 2.70}
"""Dollars a chip and hour, on demand, in regions of the United States."""

PRICE_SOURCE = (
    "on-demand list prices of cloud.google.com/tpu/pricing as of mid-2025, not looked up again; "
    "spot and reserved chips cost less, other regions more: set price_per_chip_hour"
)

# https://cloud.google.com/tpu/docs/runtimes, for JAX, as read in November 2026.
_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
_GENERATIONS = {"v4": "v4", "v5litepod": "v5e", "v5p": "v5p", "v6e": "v6e"}
_COUNT_CORES = ("v4", "v5p")  # their types count two cores a chip

# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
_GKE_NAMES = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A slice: its generation as `svit plan` calls it, and how many chips it has."""

    generation: str
    chips: int

    @classmethod
    def parse(cls, text: str) -> "Accelerator":
        """Of gcloud's name, as "v5litepod-8" or "v5p-16" (eight chips). Raises UserError."""
        kind, _, size = text.partition("-")
        if kind not in _GENERATIONS or not size.isdigit() or int(size) < 1:
            raise UserError(
                f"accelerator_type is '{text}'; write it as gcloud does: "
                f"{', '.join(f'{name}-N' for name in _GENERATIONS)}."
            )
        generation = _GENERATIONS[kind]
        return cls(generation, int(size) // 2 if generation in _COUNT_CORES else int(size))

    @property
    def chips_per_host(self) -> int:
        """Up to eight chips of v5e and v6e are one host's; of more, and of the others, four."""
        alone = 4 if self.generation in _COUNT_CORES else 8
        return self.chips if self.chips <= alone else 4

    @property
    def hosts(self) -> int:
        return self.chips // self.chips_per_host

    @property
    def runtime(self) -> str:
        return _RUNTIMES[self.generation]

    @property
    def gke_name(self) -> str:
        return _GKE_NAMES[self.generation]

    @property
    def topology(self) -> str:
        """As GKE and `svit plan` write it, "4x8". Raises UserError for a size without one."""
        known = {_product(shape): shape for shape in self._shapes()}
        if self.chips not in known:
            raise UserError(
                f"a slice of {self.chips} chips of {self.generation} has no topology here; choose "
                f"one of {', '.join(map(str, known))} chips."
            )
        return known[self.chips]

    def _shapes(self) -> tuple[str, ...]:
        return _CUBIC if self.generation in _COUNT_CORES else _FLAT


def _product(shape: str) -> int:
    result = 1
    for side in shape.split("x"):
        result *= int(side)
    return result
