"""Two and four real processes, joined by Gloo, against one process with as many devices."""

import json
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from several_processes import codes, started
from small_run import SMALL_RUN

from data_pipeline.common.errors import UserError
from svit_jax.batch import LOGICAL
from svit_jax.checkpoints.manager import load_parameters, stored_parameters
from svit_jax.distributed import Launch, launched_as_one_of_several
from svit_jax.training.inputs import Inputs
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics

# Adam divides by |gradient| + eps: with eps well above the rounding of a gradient, an update is as
# exact as the gradient itself. Runs are stopped long before their end, by whatever a test does.
SETTINGS = (
    *SMALL_RUN,
    *("model.decoder.layers=1", "model.vision.layers=2", "optim.eps=1e-3"),
    *("train.steps=1000000", "optim.warmup_ratio=1e-6", "checkpoint.every=4", "checkpoint.keep=99"),
)
STEPS = 16


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def command(tiny_data, configs):
    """Of `svit train` over the tiny data, with overrides of SETTINGS."""

    def make(workdir: Path, *overrides: str) -> list[str]:
        data = f"data.train={tiny_data.dataset}", f"data.tokenizer={tiny_data.tokenizer}"
        keys = [f"--{each}" for each in (*data, *SETTINGS, *overrides)]
        config = f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"
        arguments = ["--config", config, "--workdir", str(workdir), "--heartbeat-seconds", "30"]
        return ["-m", "svit_jax.cli", "train", *arguments, *keys]

    return make


@pytest.fixture(scope="module")
def single(make_run, tmp_path_factory) -> Path:
    """The same run in one process, on a mesh of eight devices."""

    def stop(step, state):
        raise StopError

    workdir = tmp_path_factory.mktemp("single") / "run"
    with pytest.raises(StopError):
        train(make_run("finetune", *SETTINGS), workdir, hooks=((STEPS + 1, stop),))
    return workdir


def wait_for(job, log: Path, path: Path, lines: int = 0) -> None:
    """Returns when the path is there, with so many lines."""
    while not path.exists() or (lines and len(path.read_text().splitlines()) < lines):
        assert all(each.poll() is None for each in job), log.read_text()[-3000:]
        time.sleep(0.1)


def assert_equal_runs(workdir: Path, single: Path, step: int) -> None:
    """Metrics up to the step, and its checkpoint, are the single process's."""
    rows, expected = read_metrics(workdir)[:step], read_metrics(single)[:step]
    assert [row["step"] for row in rows] == list(range(1, step + 1))
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key, value in other.items():
            np.testing.assert_allclose(row[key], value, rtol=1e-4, err_msg=f"{key} {row['step']}")
    ours, theirs = (run / "checkpoints" / str(step) for run in (workdir, single))
    here = SingleDeviceSharding(jax.devices()[0])
    shapes = {name: s.update(sharding=here) for name, s in stored_parameters(theirs).items()}
    found, reference = (jax.device_get(load_parameters(each, shapes)) for each in (ours, theirs))
    for name, value in reference.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-5, err_msg=name)


def test_two_processes_that_share_rows_train_as_one_and_one_that_dies_ends_both(
    command, single, tmp_path
):
    """`tensor` lies across the processes, so each makes all rows."""
    workdir = tmp_path / "run"
    with started(2, command(workdir, "mesh.fsdp=1", "mesh.tensor=2"), tmp_path) as job:
        wait_for(job, tmp_path / "0.log", workdir / "checkpoints" / "4")
        job[1].kill()
        killed = time.monotonic()
        assert codes(job) == [76, -signal.SIGKILL]
    # Thirty seconds of heartbeats, and a machine that does other things.
    assert time.monotonic() - killed < 120
    assert_equal_runs(workdir, single, 4)
    said, other = ((tmp_path / f"{process}.log").read_text() for process in (0, 1))
    assert "svit: process 0 of 2" in said and "lost another process of the job" in said
    assert "Traceback" not in said
    assert "measuring dialogues" in said and "tokens/s" in said
    assert "measuring dialogues" not in other and "tokens/s" not in other


@pytest.mark.slow
def test_sigterm_to_one_of_four_saves_and_two_go_on(command, single, tmp_path):
    """Two processes by two share rows, first; then `sequence` lies across both of two."""
    workdir = tmp_path / "run"
    with started(4, command(workdir, "mesh.fsdp=2", "mesh.tensor=2"), tmp_path / "four") as job:
        wait_for(job, tmp_path / "four" / "0.log", workdir / "metrics.jsonl", lines=2)
        job[2].terminate()
        assert codes(job) == [143] * 4
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 2 <= saved <= 10
    with started(2, command(workdir, "mesh.fsdp=1", "mesh.sequence=2"), tmp_path / "two") as job:
        wait_for(job, tmp_path / "two" / "0.log", workdir / "checkpoints" / "16")
    assert f"{saved}/1000000" in (tmp_path / "two" / "0.log").read_text()
    assert_equal_runs(workdir, single, 16)


def run_hosts(processes, configs, tiny_data, folder: Path, *overrides: str):
    """What each host saw, and its shards: tests/svit_jax/one_host.py."""
    data = f"data.train={tiny_data.dataset}", f"data.tokenizer={tiny_data.tokenizer}"
    script = Path(__file__).with_name("one_host.py")
    config = f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"
    command = [str(script), str(folder), config, *data, *SMALL_RUN, *overrides]
    with started(processes, command, folder, devices=4 // processes) as job:
        assert codes(job) == [0] * processes, (folder / "0.log").read_text()
    seen = [json.loads((folder / f"{n}.json").read_text()) for n in range(processes)]
    return seen, [dict(np.load(folder / f"{n}.npz")) for n in range(processes)]


def check_batches(config, folder: Path, hosts, rows) -> None:
    """Every shard is the piece of the global batch that one process would make, bit for bit, and
    together they are all of it."""
    assert [tuple(host.pop("rows")) for host in hosts] == rows
    inputs = Inputs.open(config, folder, keep_plan=True)
    every = tuple(range(config.data.batch_size))
    for loaded in inputs.loader(config, every, 0, 3):
        for name in LOGICAL:
            whole = getattr(loaded.batch, name)
            seen = np.zeros(whole.shape, bool)
            for host in hosts:
                for key, shard in host.items():
                    field, step, place = key.split()
                    if (field, int(step)) == (name, loaded.step):
                        index = tuple(slice(*map(int, e.split(":"))) for e in place.split("/"))
                        np.testing.assert_array_equal(shard, whole[index], err_msg=key)
                        seen[index] = True
            assert seen.all(), name


def check_agreement(seen) -> None:
    processes = len(seen)
    own = [f"own {process}" for process in range(processes)]
    for host in seen:
        assert host["texts"] == ["ä" * process for process in range(processes)]
        assert host["failure"] == "the first can't"
        assert [(row["id"], row["step"]) for row in host["bad"]] == [
            *((name, 0) for name in ("shared", *own)),
            ("too many", 3),
        ]
        assert (
            f"{processes + 2} bad records, more than the {processes + 1} allowed"
            in (host["too_many"])
        )
        assert host["stops"] == [False, True, True, True]


def test_batches_and_news_are_the_same_on_two_hosts(configs, tiny_data, make_run, tmp_path):
    overrides = "mesh.fsdp=2", "mesh.sequence=2"
    seen, hosts = run_hosts(2, configs, tiny_data, tmp_path, *overrides)
    check_agreement(seen)
    rows = [(0, 1, 2, 3), (4, 5, 6, 7)]
    check_batches(make_run("finetune", *SMALL_RUN, *overrides), tmp_path, hosts, rows)


@pytest.mark.slow
def test_batches_and_news_are_the_same_on_four_hosts(configs, tiny_data, make_run, tmp_path):
    overrides = "mesh.fsdp=2", "mesh.sequence=2"
    seen, hosts = run_hosts(4, configs, tiny_data, tmp_path, *overrides)
    check_agreement(seen)
    rows = [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2
    check_batches(make_run("finetune", *SMALL_RUN, *overrides), tmp_path, hosts, rows)


ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234"}


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_NTASKS": "4"}, False),  # in the batch script itself, before srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_launchers_that_start_several(environment, expected):
    environment = {"JAX_PLATFORMS": "cpu", **environment}
    assert launched_as_one_of_several(environment) is expected
    assert Launch.from_environment(environment).wanted(environment) is expected


def test_options_come_before_the_environment():
    found = Launch.from_environment({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"})
    assert found == Launch("host:1234", 2, 1)
    assert found.with_options(process=0, processes=None) == Launch("host:1234", 2, 0)
    assert found.wanted({"JAX_PLATFORMS": "cpu"})


@pytest.mark.parametrize(
    "launch, message",
    [
        (Launch("host:1234"), "--processes, --process is missing"),
        (Launch(processes=2, process=0), "--coordinator is missing"),
        (Launch("host", 2, 0), "HOST:PORT"),
        (Launch("host:1234", 2, 2), "--process is 2 of --processes=2; processes count from 0 to 1"),
        (Launch("host:1234", 2, -1), "--process is -1"),
    ],
)
def test_launches_that_cannot_be(launch, message):
    with pytest.raises(UserError, match=message):
        launch.wanted({"JAX_PLATFORMS": "cpu"})


def test_environment_that_is_no_number():
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES is 'two'; it must be a number"):
        Launch.from_environment({**ADDRESS, "JAX_NUM_PROCESSES": "two"})
