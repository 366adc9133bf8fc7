"""What attention's kernels and large products cost a TPU's core, by libtpu's own schedules.

    pip install 'svit-jax[plan]'
    nice -n 10 python benchmarks/plan_kernels.py --out benchmarks/results     # an hour or two

**Products**: the share of the peak that libtpu's cost model gives ("estimated_cycles" in a
compiled program) for the widths of Llama's 7B, 13B and 70B, of 16,384 tokens, forward and for both
gradients; where matrix units are of 256, also with more on-chip memory to work in.

**Splash attention**: a TPU's core takes an instruction bundle a cycle, and libtpu writes a kernel's
bundles when asked (`--xla_jf_dump_llo_text`); here those of the three kernels are counted, with the
decoder's heads (128, causal) and the tower's (64, every key). Three numbers each:

block   for one block of scores: a predicated region, run for blocks that some query sees
step    for each block of the grid, seen or not
row     the other predicated regions, before the first and after the last block of a row

`svit_jax/planning/kernels.py` has what comes out of it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

KERNELS = ("fwd", "dq", "dkv")
TOKENS = 16384
WIDTHS = (
    *((4096, 4096), (4096, 11008), (11008, 4096), (5120, 5120), (5120, 13824), (13824, 5120)),
    *((4096, 14336), (14336, 4096), (8192, 28672), (28672, 8192)),
)
TOPOLOGIES = {
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v5p": "v5p:2x2x1",
    "v6e": "v6e:2x2",
    "tpu7x": "tpu7x:2x2x1",
}
CORES = {"v4": 2, "v5p": 2}
"""That share a device's work, where more than one."""

ROOM = "xla_tpu_scoped_vmem_limit_kib=98304"
ROOMIER = ("v6e", "tpu7x")

HEADS = {"decoder": (1024, 128, True), "tower": (640, 64, False)}
"""Tokens, numbers of a head, causal: blocks of 512 and of 640."""


def compile_kernels(generation: str, length: int, head_dim: int, causal: bool) -> None:
    """Compiles attention and its gradients for one device; libtpu dumps as LIBTPU_INIT_ARGS say."""
    import jax
    import jax.numpy as jnp

    from svit_jax.models import attention_splash
    from svit_jax.planning.topology import parse_topology, topology_devices
    from svit_jax.sharding.rules import Placement

    device = topology_devices(parse_topology(TOPOLOGIES[generation]))[0]
    here = jax.sharding.SingleDeviceSharding(device)
    heads = jax.ShapeDtypeStruct((1, length, 1, head_dim), jnp.bfloat16, sharding=here)
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=here)
    alone = Placement(None, attention_splash.PLATFORM)

    def total(q: Any, k: Any, v: Any, segments: Any) -> Any:
        out = attention_splash.fused(q, k, v, segments, causal, alone, interpret=False)
        return out.astype(jnp.float32).sum()

    jax.jit(jax.grad(total, (0, 1, 2))).lower(heads, heads, heads, segments).compile()


def shares(generation: str, option: str = "") -> dict[str, float]:
    """The share of the peak of each product, by libtpu's estimate of its cycles."""
    import jax
    import jax.numpy as jnp

    from svit_jax.planning.topology import parse_topology, topology_devices

    topology = parse_topology(TOPOLOGIES[generation])
    here = jax.sharding.SingleDeviceSharding(topology_devices(topology)[0])
    found = {}
    for inputs, outputs in WIDTHS:
        x, y, w = (
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=here)
            for shape in ((TOKENS, inputs), (TOKENS, outputs), (inputs, outputs))
        )
        for name, spec, operands in (
            ("forward", "tx,xy->ty", (x, w)),
            ("inputs", "ty,xy->tx", (y, w)),
            ("weights", "tx,ty->xy", (x, y)),
        ):
            program = jax.jit(lambda a, b, spec=spec: jnp.einsum(spec, a, b))
            options = dict([option.split("=")]) if option else {}
            text = program.lower(*operands).compile(compiler_options=options).as_text()
            cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text)))
            a_cycle = 8 * topology.chip.matrix_unit**2 * CORES.get(generation, 1)
            ideal = 2 * TOKENS * inputs * outputs / a_cycle
            found[f"{inputs} x {outputs}, {name}"] = round(ideal / cycles, 3)
    return found


def bundles(text: str) -> dict[str, int]:
    """The bundles of a kernel's block, step and row, in libtpu's text of its final schedule: each
    has a place, and a branch skips to where its region ends."""
    branches: list[tuple[int, str]] = []
    ends: dict[str, int] = {}
    body = place = 0
    for line in text.splitlines():
        found = re.match(r"\s*(0x[0-9a-f]+|0)\s+(LB|PF|LH|LE|PB|CT)?:", line)
        if found:
            place = int(found[1], 16)
            body = place if found[2] == "LB" else body
            ends |= dict.fromkeys(re.findall(r"empty region (\d+)", line), place)
            branches += [
                (place, region) for region in re.findall(r"sbr\.rel.*target = \$region(\d+)", line)
            ]
    spans = [(start + 1, ends[name]) for start, name in branches if ends.get(name, 0) > start + 1]

    def holds(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
        return outer != inner and outer[0] <= inner[0] and inner[1] <= outer[1]

    innermost = [
        end - start for start, end in spans if not any(holds((start, end), span) for span in spans)
    ]
    block = max(innermost)
    rest = place - body - sum(innermost)
    return {"block": block, "step": rest, "row": sum(innermost) - block}


def compiled(generation: str, what: str, option: str = "", dump: str = "") -> str:
    """What a process of its own prints that compiles for a generation."""
    command = [sys.executable, __file__, "--compile", generation, what, option]
    environment = {**os.environ, "LIBTPU_INIT_ARGS": dump, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, env=environment, check=True, text=True, **pipes).stdout


def counted(generation: str, what: str) -> dict[str, dict[str, int]]:
    """The bundles of each kernel."""
    with tempfile.TemporaryDirectory() as folder:
        compiled(generation, what, dump=f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true")
        schedules = [x for x in Path(folder).glob("*final_bundles.txt") if "analysis" not in x.name]
        files = {k: next(x for x in schedules if f"splash_mha_{k}_" in x.name) for k in KERNELS}
        return {kernel: bundles(file.read_text()) for kernel, file in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generations", nargs="*", help=f"of {', '.join(TOPOLOGIES)} (default: all)")
    parser.add_argument("--out", help="folder for plan_kernels.json")
    parser.add_argument("--compile", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compile:
        generation, what, option = given.compile
        if what == "products":
            print(json.dumps(shares(generation, option)))
        else:
            compile_kernels(generation, *HEADS[what])
        return
    file = Path(given.out or ".") / "plan_kernels.json"
    result: dict[str, Any] = {"bundles": {}, "shares": {}, "mean_share": {}}
    if given.generations and file.exists():
        result |= json.loads(file.read_text())
    for generation in given.generations or TOPOLOGIES:
        for option in ("", ROOM) if generation in ROOMIER else ("",):
            products = json.loads(compiled(generation, "products", option).splitlines()[-1])
            name = f"{generation}, {option}" if option else generation
            result["shares"][name] = products
            result["mean_share"][name] = round(statistics.mean(products.values()), 3)
        result["bundles"][generation] = {what: counted(generation, what) for what in HEADS}
        print(generation, json.dumps({key: each[generation] for key, each in result.items()}))
        record(result, given.out, "plan_kernels")


if __name__ == "__main__":
    main()
