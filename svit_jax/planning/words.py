"""A plan in words: what `svit plan` prints, what its terms mean, what two plans differ in."""

from collections.abc import Iterable
from typing import Any

from svit_jax.planning.plan import Collective, Memory, Plan

EXPLAINED = """\
mesh         The devices as a grid. `fsdp` splits weights and rows, `tensor` heads and MLPs,
             `sequence` tokens, `replica` rows alone. A device holds its share and asks others for
             the rest.
rows         What a step trains on: rows of tokens, packed with dialogues. A device has some at a
             time; where it takes several turns (2 x 4: two at a time, four times), it sums their
             gradients, which needs less memory and gives the same step.
collective   Devices exchange pieces: all-gather (all get the whole), reduce-scatter (each gets its
             share of a sum), all-reduce (all get the sum), all-to-all, collective-permute (to a
             neighbour). `overlapped`: while other work goes on.
ICI, DCN     The links between chips of a slice; the slower network between slices.
memory       What one device needs at a time: weights, optimizer state, the batch, and, when most
             of them are there, gradients, activations (kept by the forward pass for the backward),
             copies of weights (gathered from other devices, or in another type) and other
             temporaries. Too much for the compiler is refused.
remat        Activations are computed again in the backward pass, in place of being kept: less
             memory, more FLOPs.
FLOPs        Operations on numbers. `model` is what the mathematics asks for, `hardware` what the
             program does: what is computed again and padding included.
MFU          Model FLOPs utilisation: model FLOPs a second over the chip's peak.
roofline     A step can't be faster than its busiest resource: matrix units, HBM (the chip's memory)
             or the interconnect. `exposed` is time in which a device only waits for others.
samples      Dialogues a step. The paper's stage 2 takes 128; another number is another recipe."""

_GIB = 2**30


def described(plan: Plan) -> str:
    """The plan as a page of text."""
    estimate, work = plan.estimate, plan.work
    axes = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items() if size > 1)
    lines = [
        f"{plan.config} on {plan.topology}: {plan.devices} x {plan.device_kind}, mesh "
        f"{axes or 'of one device'}",
        f"a step: {work['rows']:g} rows of {work['row_length']:g} tokens "
        f"({_rows(plan)}), about {work['samples']:.0f} samples, {work['tokens']:,.0f} real tokens",
        "",
        described_memory(plan.memory),
        "",
        "collectives a device and step:",
        *described_collectives(plan.collectives),
        "",
        f"FLOPs a device: model {plan.flops['model'] / 1e12:.2f} T, hardware "
        f"{plan.flops['hardware'] / 1e12:.2f} T",
        f"estimate: {estimate.seconds:.3f} s a step, bound by {estimate.bound}; "
        f"{estimate.tokens_per_second:,.0f} tokens/s a device, "
        f"{work['samples'] / estimate.seconds:.1f} samples/s, MFU {estimate.mfu:.1%}",
        *_table(
            [
                *(
                    (f"{name} busy", f"{seconds:.3f} s")
                    for name, seconds in estimate.limits.items()
                ),
                ("waiting for others", f"{estimate.exposed:.3f} s"),
            ]
        ),
        "",
        *(f"differs from the paper's recipe: {text}" for text in plan.departures),
    ]
    if "libtpu" not in plan.versions:
        lines.append(
            "less exact: compiled for simulated devices, so partitioning and collectives are those "
            "of XLA's CPU compiler, memory is rough, and a GPU's own compiler would do better."
        )
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    lines.append(f"compiled in {plan.compile_seconds:.0f} s with {versions}")
    return "\n".join(lines)


def described_memory(memory: Memory) -> str:
    """What a device needs of what it has, and for what, most first."""
    slack = (memory.capacity - memory.total) / _GIB
    verdict = f"fits, {slack:.2f} to spare" if memory.fits else f"{-slack:.2f} GiB too much"
    parts = sorted(memory.parts.items(), key=lambda part: -part[1])
    return "\n".join(
        (
            f"memory a device: {memory.total / _GIB:.2f} of {memory.capacity / _GIB:.2f} GiB: "
            f"{verdict}",
            *_table((name, f"{size / _GIB:.3f} GiB") for name, size in parts),
        )
    )


def described_collectives(collectives: Iterable[Collective]) -> list[str]:
    rows = [
        (
            *(row.kind, "+".join(row.axes), row.network, str(row.count)),
            *(f"{row.bytes / 1e9:.3f}", str(row.overlapped)),
        )
        for row in collectives
    ]
    return _table([("kind", "axes", "network", "count", "GB sent", "overlapped"), *rows])


def _rows(plan: Plan) -> str:
    rows, times = plan.choices["rows_per_device"], plan.work["accumulate"]
    text = "1 row a device" if rows == 1 else f"{rows:g} rows a device"
    return text if times == 1 else f"{text} at a time, {times:g} times"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def difference(before: Plan, after: Plan) -> dict[str, tuple[Any, Any]]:
    """What changed, by name: the value in each. Times of compiling are left out."""
    old, new = _flat(before.to_json()), _flat(after.to_json())
    names = [name for name in dict.fromkeys((*old, *new)) if name != "compile_seconds"]
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "collectives":
            for row in value:
                where = f"collectives.{row['kind']} over {'+'.join(row['axes'])}"
                found |= {f"{where}.{key}": row[key] for key in ("count", "bytes", "overlapped")}
        elif isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
