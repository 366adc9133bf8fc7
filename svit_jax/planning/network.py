"""What connects a mesh's devices: which links a collective crosses, and how fast they are."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from svit_jax.chips import Chip
from svit_jax.planning.groups import Exchange

HOP_SECONDS = 1e-6
"""A message's way over one link, however short it is."""


@dataclasses.dataclass(frozen=True)
class Links:
    """Bandwidth of one device into its group (bytes a second), over which network, and how many
    links the farthest message crosses."""

    network: str
    bandwidth: float
    hops: int


class Network:
    """The links between `devices`, in the order of the mesh; TPUs' know their place in the torus.

    A group that lies along d of a slice's dimensions uses the links of all d at once: of each, two
    where the dimension closes to a ring that the group fills, one where it is a line, whose ends
    have no other. Groups over several slices (or nodes of GPUs) share what their members there have
    of the wide-area network.
    """

    def __init__(self, chip: Chip, devices: Sequence[Any], shape: tuple[int, ...]):
        self._chip, self._shape = chip, shape
        self._places = [
            tuple(getattr(device, "coords", None) or ()) if shape else () for device in devices
        ]
        self._homes = [
            (getattr(device, "slice_index", 0) or 0) if shape else place // chip.node
            for place, device in enumerate(devices)
        ]

    @property
    def simulated(self) -> bool:
        """Whether the program was compiled for CPUs in the place of GPUs."""
        return not self._shape

    def links(self, group: Sequence[int]) -> Links:
        homes = {self._homes[device] for device in group}
        inside = self._inside([d for d in group if self._homes[d] == self._homes[group[0]]])
        if len(homes) == 1:
            return inside
        wide = self._chip.wide_area * len(group) / len(homes)
        name = "dcn" if self._shape else "infiniband"
        return Links(name, min(wide, inside.bandwidth or wide), inside.hops + len(homes) - 1)

    def _inside(self, group: Sequence[int]) -> Links:
        """Within one slice or node; no bandwidth where the group has one device there."""
        if not self._shape:
            return Links("nvlink", self._chip.link if len(group) > 1 else 0.0, 1)
        bandwidth, hops = 0.0, 0
        for axis, size in enumerate(self._shape):
            extent = len({self._places[device][axis] for device in group})
            if extent > 1:
                ring = extent == size and size >= self._chip.ring_from
                bandwidth += self._chip.link * (2 if ring else 1)
                hops += extent // 2 if ring else extent - 1
        # The two cores of a chip talk within it; it has no figure of its own.
        return Links("ici", bandwidth or self._chip.link * (len(group) > 1), hops)

    def seconds(self, exchange: Exchange) -> float:
        """Of one collective alone on its links."""
        if not exchange.group or not exchange.bytes:
            return 0.0
        links = self.links(exchange.group)
        if exchange.step and links.network == "ici":
            # Neighbours in a ring: one link, one way; from farther off, they share it.
            apart = abs(exchange.step)
            return max(exchange.bytes * apart / self._chip.link, apart * HOP_SECONDS)
        return max(exchange.bytes / links.bandwidth, links.hops * HOP_SECONDS)
