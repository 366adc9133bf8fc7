"""`svit plan`: what a config's step would need and cost on a slice that isn't there."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svit_jax.cli.job import add_int8, add_job
from svit_jax.cli.sweep import add_sweep_options, sweep


def plan_job(jobs: Any) -> None:
    job = add_job(
        jobs,
        "plan",
        _run,
        "compile a config's step for a slice that isn't there: memory, collectives, step time",
        "svit plan --config configs/svit_v1_5_13b_finetune.py:v5e --topology v5e:16x16",
    )
    job.usage = (
        "svit plan --config FILE --topology NAME [--mesh AXIS=SIZE,...] [--section.key=value ...]\n"
        "       svit plan --config FILE ... --topology NAME ... --sweep | --find-best\n"
        "       svit plan --config FILE --topology NAME --generate [--requests N ...]"
    )
    job.set_defaults(job_parser=job)
    job.add_argument("--config", nargs="+", help="config file, with :argument if it takes one")
    job.add_argument(
        "--topology",
        nargs="+",
        metavar="NAME",
        help="v5e:16x16, v4:4x4x4, 2xv6e:16x16 (two slices), v5p-128, h100:8, ...",
    )
    job.add_argument("--slices", type=int, default=1, help="how many slices of that topology")
    job.add_argument("--mesh", default="", help="in place of the config's: fsdp=64,tensor=4")
    job.add_argument(
        "--machine-code",
        action="store_true",
        help="let the TPU compiler finish, minutes more: the program's size, and what only that "
        "stage refuses",
    )
    job.add_argument("--save", metavar="FILE", help="keep the plan as JSON, for --diff")
    job.add_argument("--hlo", metavar="FILE", default="", help="keep the compiled program's text")
    job.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), help="what changed between two saved plans"
    )
    job.add_argument("--explain", action="store_true", help="what the words of a plan mean")
    add_sweep_options(job)
    answering = job.add_argument_group("answering, in place of training")
    answering.add_argument(
        "--generate", action="store_true", help="plan prefill and decoding of the config's model"
    )
    answering.add_argument("--requests", type=int, default=8, help="that decode together (8)")
    answering.add_argument("--context", type=int, default=4096, help="tokens of each (4096)")
    answering.add_argument("--prompt", type=int, default=1024, help="a prompt's tokens (1024)")
    answering.add_argument("--pictures", type=int, default=1, help="of a prompt (1)")
    answering.add_argument("--chunk", type=int, default=4, help="tokens a call of decoding (4)")
    add_int8(answering)


def _run(options: argparse.Namespace) -> None:
    from svit_jax.planning import words

    if options.explain:
        print(words.EXPLAINED)
    if options.diff:
        return _diff(options)
    if options.explain and not options.config:
        return
    missing = [f"--{name}" for name in ("config", "topology") if not getattr(options, name)]
    if missing:
        options.job_parser.error(f"the following arguments are required: {', '.join(missing)}")
    os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU or GPU of this machine has no part in it
    if options.sweep or options.find_best:
        return sweep(options)
    if len(options.config) > 1 or len(options.topology) > 1:
        options.job_parser.error("several configs or topologies are for --sweep or --find-best")
    _plan(options, options.config[0], options.topology[0])


def _diff(options: argparse.Namespace) -> None:
    from data_pipeline.common.files import read_json
    from svit_jax.planning.plan import Plan
    from svit_jax.planning.words import difference

    before, after = (Plan.from_json(read_json(Path(file), "plan")) for file in options.diff)
    changes = difference(before, after)
    if options.json:
        print(json.dumps(changes))
    else:
        print("\n".join(f"{name}: {a} -> {b}" for name, (a, b) in changes.items()) or "no change")


def _plan(options: argparse.Namespace, config: str, topology: str) -> None:
    from svit_jax.planning.topology import parse_topology

    place = parse_topology(topology, options.slices)
    if not place.on_tpu and _MARK not in os.environ:
        sys.exit(_simulated(place.count, options.arguments))
    if options.generate:
        return _generate(options, config, topology)
    from data_pipeline.common.files import write_json
    from svit_jax.planner import plan_config
    from svit_jax.planning.memory import DoesNotFitError
    from svit_jax.planning.words import described, described_memory

    try:
        plan = plan_config(
            config,
            options.overrides,
            topology,
            options.mesh,
            options.slices,
            options.hlo,
            lambda text: print(text, file=sys.stderr, flush=True),
            options.machine_code,
        )
    except DoesNotFitError as error:
        if error.memory:
            refused = {"reason": str(error), "memory": dataclasses.asdict(error.memory)}
            print(json.dumps(refused) if options.json else described_memory(error.memory))
        raise
    if options.save:
        write_json(Path(options.save), plan.to_json())
    print(json.dumps(plan.to_json()) if options.json else described(plan))


def _generate(options: argparse.Namespace, config: str, topology: str) -> None:
    from data_pipeline.common.files import write_json
    from svit_jax.generation_planner import Answering, described_generation, plan_generation

    plan = plan_generation(
        config,
        options.overrides,
        topology,
        options.mesh,
        Answering(
            *(options.requests, options.context, options.prompt, options.pictures),
            *(options.int8, options.chunk),
        ),
        options.slices,
        options.hlo,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    if options.save:
        write_json(Path(options.save), plan.to_json())
    print(json.dumps(plan.to_json()) if options.json else described_generation(plan))


_MARK = "SVIT_PLAN_SIMULATED"


def _simulated(devices: int, arguments: Sequence[str]) -> int:
    """The same command in a process whose JAX starts with so many simulated devices."""
    from svit_jax.planning.topology import SIMULATION_FLAGS

    count = f"--xla_force_host_platform_device_count={devices}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {count} {SIMULATION_FLAGS}".strip()
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", _MARK: "1"}
    return subprocess.run(
        [sys.executable, "-m", "svit_jax.cli", *arguments], env=environment
    ).returncode
