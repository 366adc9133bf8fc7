"""The launchers for ssh and Slurm, against stand-ins that run or record what they are given."""

import os
import subprocess
import time
from pathlib import Path

import pytest

GPU = Path(__file__).resolve().parents[2] / "tpu_scripts" / "gpu"
PYTHON = """#!/bin/sh
echo "arguments: $*"
trap 'exit 143' TERM
sleep 60 &
wait
"""


def launch(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *command], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_ssh_starts_once_on_all_hosts_and_stops_them(stand_in, tmp_path):
    folder = tmp_path / "code here"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(PYTHON)
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    (folder / "tpu_scripts").symlink_to(GPU.parent)
    hosts = tmp_path / "hosts"
    hosts.write_text("one\n\ntwo\n")
    script = str(GPU / "ssh.sh")
    where = str(hosts), str(folder)
    for said in ("started as", "runs already"):
        done = launch(script, "start", *where, "--config=c.py:gpu8", "--data.train=a b")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(said) == 2
    end = time.monotonic() + 20
    logs = [stand_in.root / "hosts" / name / "svit" / "run" / "log" for name in ("one", "two")]
    while not all("arguments" in log.read_text() for log in logs):
        assert time.monotonic() < end
        time.sleep(0.05)
    for process, log in enumerate(logs):
        assert (
            "arguments: -m svit_jax.cli train --coordinator=one:8476 --processes=2 "
            f"--process={process} --config=c.py:gpu8 --data.train=a b\n" in log.read_text()
        )
    assert launch(script, "stop", *where).returncode == 0
    assert launch(script, "state", *where).stdout.count("ended 143") == 2


# docs/training.md: 75, 76 and 143 are to be started again; 1 is for the user, 0 the end.
@pytest.mark.parametrize(
    "code, before, again",
    [
        (0, 0, False),
        (1, 0, False),
        (75, 0, True),
        (76, 2, True),
        (143, 0, True),
        (76, 3, False),
    ],
)
def test_slurm_queues_again_what_a_new_start_mends(stand_in, code, before, again):
    stand_in.root.mkdir()
    arguments = str(GPU / "slurm.sh"), "--config=c.py:gpu8", "--data.train=a b"
    limits = {"MAX_RESTARTS": "3", "SLURM_RESTART_COUNT": str(before)}
    done = launch(*arguments, CODE=str(code), SLURM_JOB_ID="7", **limits)
    assert done.returncode == code
    calls = (stand_in.root / "slurm").read_text()
    assert "-m svit_jax.cli train --config=c.py:gpu8 --data.train=a b\n" in calls
    assert ("scontrol requeue 7\n" in calls) is again


def test_another_program_takes_the_place_of_training(stand_in, tmp_path):
    stand_in.root.mkdir()
    started = {"PROGRAM": "tpu_scripts.experiments", "CODE": "0", "SLURM_JOB_ID": "7"}
    assert launch(str(GPU / "slurm.sh"), "plans.json", "--out=a b", **started).returncode == 0
    calls = (stand_in.root / "slurm").read_text()
    assert "-m tpu_scripts.experiments plans.json --out=a b\n" in calls


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "give start, state, stop or log"),
        (("begin", "hosts", "folder"), "begin is not a command"),
        (("start", "nowhere", "folder"), "nowhere, cannot be read"),
        (("start", os.devnull, "folder"), f"{os.devnull}, is empty"),
    ],
)
def test_wrong_usage_of_ssh_is_said_in_a_sentence(arguments, said):
    done = launch(str(GPU / "ssh.sh"), *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("ssh.sh: ") and said in done.stderr


def test_slurm_says_that_it_is_no_job():
    done = launch(str(GPU / "slurm.sh"), "--config=c.py:gpu8", SLURM_JOB_ID="")
    assert done.returncode == 2 and "sbatch" in done.stderr
