"""Plans from closed forms in place of a compiler's, for a model and a chip that nobody has."""

import dataclasses

from svit_jax.planning.plan import Collective, Estimate, Memory, Plan
from svit_jax.planning.sweep.children import Answer
from svit_jax.planning.sweep.grid import Candidate

GIB = 2**30
KEPT = {"none": 1.0, "dots": 0.5, "qkv": 0.25, "attention": 0.1, "full": 0.04}
AGAIN = {"none": 1.0, "dots": 1.05, "qkv": 1.15, "attention": 1.28, "full": 1.33}


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A step's time is its products', the gathers of weights once a microbatch, and what `tensor`
    and `sequence` send for each row; its memory the state's share and what layers keep."""

    capacity: float = 16.0
    state: float = 200.0
    activations: float = 12.0
    compute: float = 0.10
    gather: float = 0.06
    tensor_cost: float = 0.02
    sequence_cost: float = 0.01
    spread: float = 0.5

    def __call__(self, candidate: Candidate) -> Answer:
        replica, fsdp, tensor, sequence = candidate.mesh
        together = tensor * sequence
        rows, devices = candidate.rows, replica * fsdp * together
        state = self.state / (fsdp * tensor)
        kept = rows * self.activations * KEPT[candidate.remat] / together
        total = int((state + kept + self.spread) * GIB)
        sent = (tensor - 1) * self.tensor_cost + (sequence - 1) * self.sequence_cost
        products = rows * self.compute * AGAIN[candidate.remat] / together
        gathers = self.gather / tensor + (0.05 if replica > 1 else 0) / candidate.accumulate
        moved = gathers + rows * sent
        seconds = candidate.accumulate * (products + moved)
        tokens = candidate.batch_size * 4096 * 0.9
        paper = candidate.batch_size == 32
        return Answer(
            Plan(
                config=candidate.config,
                overrides=candidate.settings,
                topology=candidate.topology,
                devices=devices,
                device_kind="TPU stand-in",
                mesh=candidate.sizes,
                work={
                    "rows": float(candidate.batch_size),
                    "row_length": 4096.0,
                    "tokens": tokens,
                    "samples": candidate.batch_size * 4.125,
                    "pictures": candidate.batch_size * 5.0,
                    "accumulate": float(candidate.accumulate),
                },
                choices={
                    "mode": "lora" if "lora" in candidate.config else "full",
                    "remat_decoder": candidate.remat,
                    "remat_vision": "full",
                    "rows_per_device": rows,
                },
                memory=Memory(
                    total,
                    int(self.capacity * GIB),
                    {"weights": int(state * GIB), "activations": total - int(state * GIB)},
                ),
                collectives=(Collective("all-gather", ("fsdp",), "ici", 80, 10**9, 40),),
                flops={"model": 1e15, "hardware": 1.3e15},
                estimate=Estimate(
                    seconds,
                    {"matrix units": candidate.accumulate * products, "interconnect": moved},
                    "matrix units" if products > moved else "interconnect",
                    tokens / seconds / devices,
                    products / (products + moved) / AGAIN[candidate.remat],
                ),
                departures=()
                if paper
                else (f"{candidate.batch_size * 4.125:g} dialogues a step, not 128",),
                compile_seconds=1.0,
                versions={"jax": "1.0", "jaxlib": "1.0", "libtpu": "1.0"},
            )
        )
