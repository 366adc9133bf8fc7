"""The compiler's process, with a shell script in its place: how it ends, and who ends it."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from data_pipeline.common.errors import UserError
from svit_jax import plan_compiler, planner
from svit_jax.config import load_config, run_config
from svit_jax.plan_compiler import Ending, compile_step
from svit_jax.planning.hlo import parse
from svit_jax.planning.memory import DoesNotFitError
from svit_jax.planning.plan import Memory
from svit_jax.planning.topology import parse_topology
from svit_jax.sharding.mesh import MeshConfig, make_mesh

PLACE = parse_topology("v5e:2x4")
REFUSAL = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.34G of 15.75G hbm."


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """compiler(script) runs a compilation whose child is the script, until `enough()`."""

    def run(script: str, enough=lambda: False) -> Ending:
        file = tmp_path / "compiler"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(plan_compiler.sys, "executable", str(file))
        return compile_step("config.py", ("data.batch_size=8",), PLACE, tmp_path, enough)

    return run


def test_a_compiler_that_finishes_tells_the_codes_size(compiler):
    assert compiler("echo starting; echo '{\"code_bytes\": 500}'") == Ending(code_bytes=500)


def test_it_is_told_what_to_compile(compiler, tmp_path):
    compiler(f'echo "$@" > {tmp_path}/asked; echo "{{}}"')
    asked = (tmp_path / "asked").read_text().split()
    assert asked[2:] == ["v5e:2x4", str(tmp_path), "config.py", "data.batch_size=8"]


def test_what_the_compiler_refuses_is_told(compiler):
    assert compiler(f'echo \'{{"refusal": "{REFUSAL}"}}\'').refusal == REFUSAL


def test_a_config_that_cant_be_is_the_users_error(compiler):
    with pytest.raises(UserError, match="eight rows"):
        compiler('echo \'{"wrong": "eight rows"}\'')


def test_a_compiler_that_breaks_down_is_no_plan(compiler):
    with pytest.raises(RuntimeError, match="ended with 3"):
        compiler("exit 3")


def test_it_is_ended_once_there_is_enough(compiler, tmp_path):
    file = tmp_path / "pid"
    script = f"echo $$ > {file}.new; mv {file}.new {file}; exec sleep 600"
    assert compiler(script, file.exists) == Ending()
    assert subprocess.run(["kill", "-0", file.read_text().strip()]).returncode != 0


def test_it_ends_with_the_process_that_started_it():
    code = "import time; from svit_jax.plan_compiler import _end_with_parent as e; e(); "
    code += "print(1, flush=True); time.sleep(600)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        assert child.stdout.readline() == b"1\n"
        child.stdin.close()
        assert child.wait(60) == 1


@pytest.fixture
def planned(configs, monkeypatch):
    """planned(ending, totals) is what the planner makes of a compiler that ends so, having written
    programs of these bytes."""
    config = run_config(load_config(f"{configs}/svit_v1_5_7b_finetune.py:tiny"), with_data=False)
    mesh = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
    return functools.partial(_planned, monkeypatch, config, mesh)


def _planned(monkeypatch, config, mesh, ending: Ending, totals: list[int]):
    empty = parse((Path(__file__).with_name("two_layers.hlo")).read_text())
    written = [planner._Compiled("", empty, Memory(total, 100, {})) for total in totals]
    monkeypatch.setattr(planner, "assignment_is_written", lambda folder: True)
    monkeypatch.setattr(planner, "_written", lambda *rest: [written.pop(0)] if written else [])
    ended = []

    def compile_step(config_file, overrides, place, folder, enough):
        ended.append(enough())
        return Ending() if ended[0] else ending

    monkeypatch.setattr(planner, "compile_step", compile_step)
    found = planner._for_tpu(config, "config.py", (), PLACE, mesh, machine_code=False)
    return found.memory, ended[0]


def test_a_program_that_fits_ends_the_compiler(planned):
    assert planned(Ending(1), [90]) == (Memory(90, 100, {}), True)


def test_the_compilers_second_try_counts_where_the_first_is_too_large(planned):
    assert planned(Ending(1), [110, 95]) == (Memory(95, 100, {}), False)


def test_a_refused_step_tells_what_it_needs(planned):
    with pytest.raises(DoesNotFitError, match=r"needs 21.34G of 15.75G") as error:
        planned(Ending(refusal=REFUSAL), [110, 120])
    assert error.value.memory == Memory(120, 100, {})


def test_a_refusal_of_another_kind_is_no_verdict_on_memory(planned):
    with pytest.raises(RuntimeError, match="scoped vmem"):
        planned(Ending(refusal="RESOURCE_EXHAUSTED: scoped vmem"), [])
