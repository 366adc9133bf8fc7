"""Plans made by hand, for tests of what is done with them."""

from svit_jax.planning.plan import Estimate, Memory, Plan

GIB = 2**30


def a_plan(
    fsdp: int,
    tensor: int,
    tokens_per_second: float,
    seconds: float = 2.0,
    memory: float = 10.0,
    kind: str = "TPU v5 lite",
) -> Plan:
    """Of one step on fsdp x tensor devices; memory in GiB of v5e's 15.75."""
    mesh = {"replica": 1, "fsdp": fsdp, "tensor": tensor, "sequence": 1}
    total = int(memory * GIB)
    return Plan(
        config="configs/some.py:v5e",
        overrides=tuple(f"mesh.{axis}={size}" for axis, size in mesh.items()),
        topology="v5e:2x4",
        devices=fsdp * tensor,
        device_kind=kind,
        mesh=mesh,
        work={"rows": 8.0, "samples": 33.0, "tokens": 30000.0, "accumulate": 1.0},
        choices={"mode": "lora", "remat_decoder": "full", "rows_per_device": 1.0},
        memory=Memory(total, int(15.75 * GIB), {"weights": total}),
        collectives=(),
        flops={"model": 1.0, "hardware": 1.0},
        estimate=Estimate(seconds, {"HBM": seconds}, "HBM", tokens_per_second, 0.4),
        departures=(),
        compile_seconds=1.0,
        versions={"jax": "0.11.0", "jaxlib": "0.11.0", "libtpu": "0.0.50"},
    )
