"""The TPU compiler at work on a config's step, in a process of its own, which need not finish.

Before it makes machine code the compiler writes down the scheduled program and where its
temporaries lie, and refuses what does not fit. Machine code takes nine tenths of its time, and a
plan is made of nothing in it but its size.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipeline.common.errors import UserError
from svit_jax.config import load_config, run_config
from svit_jax.planning.topology import Topology, parse_topology, topology_devices
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.inputs import PAPER_SAMPLES
from svit_jax.training.program import compile_run

DIALOGUES = 665_298
STEPS = DIALOGUES // PAPER_SAMPLES
"""Of an epoch of SVIT-mix-665K, since a plan reads no data."""
_POLL = 0.2  # seconds


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a compiler ended: with the size of its machine code, or with a refusal's text. Neither:
    it was ended."""

    code_bytes: int = 0
    refusal: str = ""


def compile_step(
    config_file: str,
    overrides: Sequence[str],
    place: Topology,
    folder: Path,
    enough: Callable[[], bool],
) -> Ending:
    """Compiles a config's step for TPUs. What the compiler writes comes into `folder`; it is ended
    as soon as `enough()`.

    Raises UserError for a config that can't be, RuntimeError for a compiler that fails otherwise.
    """
    command = [sys.executable, "-m", __name__, place.name, str(folder), config_file, *overrides]
    # A program out of JAX's cache would come without what is to be read.
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    with tempfile.TemporaryFile("w+") as answer:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=answer, env=environment
        ) as child:
            try:
                while child.poll() is None:
                    if enough():
                        return Ending()
                    time.sleep(_POLL)
            finally:
                child.kill()
        answer.seek(0)
        lines = answer.read().splitlines()
    if not lines:
        raise RuntimeError(f"the compiler ended with {child.returncode}, and said nothing")
    found = json.loads(lines[-1])
    if "wrong" in found:
        raise UserError(found["wrong"])
    return Ending(**found)


def _main(topology: str, folder: str, config_file: str, *overrides: str) -> None:
    """The child: prints an Ending as JSON, or what is "wrong" with the config."""
    _end_with_parent()
    try:
        config = run_config(load_config(config_file, overrides), with_data=False)
        grid = make_mesh(config.mesh, topology_devices(parse_topology(topology)))
        options = (*config.train.compiler_options, f"xla_dump_to={folder}")
        train = dataclasses.replace(config.train, compiler_options=options)
        steps = config.train.steps or STEPS
        step: Any = compile_run(dataclasses.replace(config, train=train), steps, grid)[2]
        print(json.dumps({"code_bytes": step.memory_analysis().generated_code_size_in_bytes}))
    except UserError as error:
        print(json.dumps({"wrong": str(error)}))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(json.dumps({"refusal": str(error)}))


def _end_with_parent() -> None:
    """Ends this process with its standard input: a killed parent leaves none behind."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
