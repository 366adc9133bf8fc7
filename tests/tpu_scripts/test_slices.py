"""The commands against a gcloud that keeps state: what is asked of it, and what is said."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tpu_scripts.accelerators import Accelerator
from tpu_scripts.ledger import Ledger
from tpu_scripts.slices import HostJob, judge

REPOSITORY = Path(__file__).resolve().parents[2]


# Of cloud.google.com/tpu/docs/v5e, .../v5p, .../v4 and .../v6e: chips and hosts of a type.
@pytest.mark.parametrize(
    "name, chips, hosts, topology",
    [
        ("v5litepod-1", 1, 1, "1x1"),
        ("v5litepod-4", 4, 1, "2x2"),
        ("v5litepod-8", 8, 1, "2x4"),
        ("v5litepod-16", 16, 4, "4x4"),
        ("v5litepod-256", 256, 64, "16x16"),
        ("v6e-32", 32, 8, "4x8"),
        ("v4-8", 4, 1, "2x2x1"),
        ("v4-32", 16, 4, "2x2x4"),
        ("v5p-64", 32, 8, "2x4x4"),
        ("v5p-128", 64, 16, "4x4x4"),
    ],
)
def test_accelerator_types(name, chips, hosts, topology):
    found = Accelerator.parse(name)
    assert (found.chips, found.hosts, found.topology) == (chips, hosts, topology)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"budget": 0.0}, "nothing is created without a limit"),
        ({"accelerator_type": "h100-8"}, "write it as gcloud does: v4-N, v5litepod-N, v5p-N"),
        ({"name": "My_Run"}, "lower-case letters, digits and hyphens"),
        ({"capacity": "cheap"}, "choose one of on-demand, spot, reserved"),
        ({"bucket": "bucket"}, "write it as gs://NAME"),
        ({"slices": 2, "queued": False}, "several only as a queued resource"),
        ({"budgett": 1.0}, "unknown key 'budgett'"),
        ({"slices": 1.5}, "slices is 1.5; it must be a whole number"),
        ({"train": ["--a", 1]}, "must be a list of strings"),
    ],
)
def test_settings_that_cannot_be(stand_in, capsys, changed, message):
    stand_in.settings(**changed)
    assert stand_in.svit("create") == 1
    assert message in capsys.readouterr().err
    assert stand_in.calls == []


def test_a_budget_is_required(stand_in, capsys):
    text = stand_in.file.read_text()
    stand_in.file.write_text(re.sub("budget.*\n", "", text))
    assert stand_in.svit("create") == 1
    assert "lacks budget" in capsys.readouterr().err
    assert stand_in.calls == []


def test_create_is_idempotent_and_says_what_runs_and_costs(stand_in, capsys):
    stand_in.rules(waits=2)
    assert stand_in.svit("create") == 0
    assert stand_in.svit("create") == 0
    assert stand_in.calls.count("queued-resources create") == 1
    (made,) = [call for call in stand_in.state["calls"] if call[1] == "create"]
    assert set(made[2:]) == {
        "svit",
        "--zone=us-west4-a",
        "--project=p",
        "--accelerator-type=v5litepod-8",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--node-id=svit",
        "--spot",
        "--async",
    }
    said = capsys.readouterr().out
    # Eight chips at $1.20.
    assert "RUNNING NOW: svit (us-west4-a, v5litepod-8), $9.60 an hour" in said
    assert stand_in.svit("delete") == 0
    assert "nothing runs in project p" in capsys.readouterr().out
    assert stand_in.svit("delete") == 0, "deleting what is not there is no error"
    assert stand_in.state["requests"] == stand_in.state["nodes"] == {}


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"capacity": "on-demand"}, {"--node-id=svit"}),
        ({"capacity": "reserved"}, {"--reserved", "--node-id=svit"}),
        ({"slices": 2}, {"--spot", "--node-count=2", "--node-prefix=svit"}),
        ({"service_account": "a@b"}, {"--spot", "--service-account=a@b", "--node-id=svit"}),
    ],
)
def test_what_a_request_asks_for(stand_in, changed, expected):
    stand_in.settings(**changed)
    assert stand_in.svit("create") == 0
    (made,) = [call for call in stand_in.state["calls"] if call[1] == "create"]
    kinds = ("--spot", "--reserved", "--node", "--service")
    assert {flag for flag in made if flag.startswith(kinds)} == expected
    assert len(stand_in.state["nodes"]) == changed.get("slices", 1)


def test_a_tpu_vm_without_a_queue(stand_in):
    stand_in.settings(queued=False)
    assert [stand_in.svit(name) for name in ("create", "status", "delete")] == [0, 0, 0]
    assert "queued-resources" not in " ".join(stand_in.calls)
    assert {"tpu-vm create", "tpu-vm delete"} <= set(stand_in.calls)


def wait_until(check, seconds=20.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_job_is_installed_once_started_once_gathered_and_stopped(stand_in, capsys):
    """On two hosts of two slices; the job says who it is, and saves when it is told to stop."""
    script = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(143))\n"
    script += "print('here', flush=True)\ntime.sleep(60)\n"
    program = stand_in.program(script)
    install = f"echo x >>$HOME/installs && {program}"
    stand_in.settings(slices=2, accelerator_type="v5litepod-16", install=install)
    stand_in.rules(hosts=4)
    assert stand_in.svit("create") == 0
    places = [stand_in.host(f"svit-{node}", worker) for node in (0, 1) for worker in range(4)]
    assert [stand_in.svit("start"), stand_in.svit("start")] == [0, 0]
    for place in places:
        assert (place / "installs").read_text() == "x\n"
        assert (place / "svit" / "run" / "log").read_text().count("===") == 1
    wait_until(lambda: all("here" in (p / "svit/run/log").read_text() for p in places))
    capsys.readouterr()
    assert stand_in.svit("status") == 0
    assert capsys.readouterr().out.count("running") == 8
    assert stand_in.svit("logs") == 0
    gathered = sorted(path.name for path in stand_in.file.with_suffix(".logs").iterdir())
    assert gathered == [f"svit-{node}-{worker}.log" for node in (0, 1) for worker in range(4)]
    assert stand_in.svit("stop") == 0
    assert stand_in.svit("status") == 0
    said = capsys.readouterr().out
    assert said.count("ended with 143") == 8
    assert "RUNNING NOW: svit-1" in said, "stopping the job does not stop the bill"


def test_the_doctor_sees_all_hosts_and_one_that_is_ill_is_heard(stand_in, capsys):
    """It is given the config and its keys, not what is for training alone."""
    script = "import os, sys, time\nprint('asked', *sys.argv[1:], flush=True)\n"
    script += "if sys.argv[1] == 'train': time.sleep(300)\n"
    script += "if os.path.exists(os.path.expanduser('~/ill')): sys.exit('svit: not fit to train')\n"
    train = ["--config", "c.py:v5e", "--profile-steps=2:3", "--train.steps=4"]
    settings = {"accelerator_type": "v5litepod-16", "train": train}
    stand_in.settings(install=stand_in.program(script), **settings)
    stand_in.rules(hosts=4)
    assert stand_in.svit("create") == 0
    assert stand_in.svit("doctor") == 0
    said = capsys.readouterr().out
    asked = "doctor --workdir=gs://bucket/svit --devices=16 --config c.py:v5e --train.steps=4"
    assert said.splitlines().count(f"asked {asked}") == 1
    (stand_in.host(worker=2) / "ill").touch()
    assert stand_in.svit("doctor") == 1
    assert capsys.readouterr().out.count("svit: not fit to train") == 1
    (stand_in.host(worker=2) / "ill").unlink()
    assert stand_in.svit("start") == 0
    assert stand_in.svit("doctor") == 1
    assert "svit is training, and that has the chips; stop it first" in capsys.readouterr().err


def test_dry_runs_print_and_do_nothing(stand_in, capsys):
    for name in ("create", "install", "doctor", "start", "status", "logs", "stop", "delete"):
        assert stand_in.svit("--dry-run", name) == 0
    assert stand_in.svit("--dry-run", "babysit") == 0
    assert stand_in.calls == []
    said = capsys.readouterr().out.splitlines()
    commands = [line for line in said if line.startswith("gcloud compute tpus ")]
    assert len(commands) >= 11
    assert commands[0].startswith("gcloud compute tpus queued-resources describe svit ")
    assert said.count("slice svit: ready (assumed)") == 1
    assert any("tpu-vm describe svit " in line for line in commands)
    assert not any(".logs" in line for line in said)
    assert list(stand_in.file.parent.iterdir()) == [stand_in.file]


def test_an_experiment_runs_in_trainings_place(stand_in, capsys):
    stand_in.settings(
        accelerator_type="v5litepod-32",
        experiment=["plans.json", "--top=5"],
        train=["--config=c.py:v5e", "--data.train=set", "--eval-limit=5"],
    )
    assert stand_in.svit("--dry-run", "start") == 0
    said = capsys.readouterr().out.replace("'\"'\"'", "'")
    assert (
        "job.sh start python3 -m tpu_scripts.experiments plans.json --top=5 --out=gs://bucket/svit/"
        "experiment --hosts=8 --data.train=set"
    ) in said
    assert "--eval-limit" not in said and "c.py" not in said


def test_runs_with_python_alone(stand_in):
    """No site-packages: a laptop has none of ours."""
    command = [sys.executable, "-S", "-m", "tpu_scripts", "--file", str(stand_in.file), "status"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "slice svit: absent" in done.stdout


def test_what_is_said_where_gcloud_fails(stand_in, capsys):
    stand_in.rules(fail=[{"match": "create", "times": 1}])
    assert stand_in.svit("create") == 1
    said = capsys.readouterr()
    assert "ended with 1" in said.err and "UNAVAILABLE" in said.err
    assert "nothing runs in project p" in said.out


def test_a_ledger_never_counts_too_little(tmp_path):
    """By hand: unseen until 0 h, running from some moment before 1 h to some moment before 4 h."""
    now = [0.0]
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: now[0] * 3600)
    for hour, rate in ((0, 0.0), (1, 10.0), (2, 10.0), (3, 20.0), (4, 0.0), (9, 0.0)):
        now[0] = hour
        ledger.saw(rate)
    assert ledger.spent == pytest.approx(10 + 10 + 20 + 20)
    ledger.saw(5.0)
    now[0] = 11
    assert ledger.spent == pytest.approx(60 + 10), "what was last seen running still runs"
    with ledger.path.open("a") as file:
        file.write('{"time": 1')  # a line torn by a kill
    again = Ledger(ledger.path, lambda: now[0] * 3600)
    assert again.spent == pytest.approx(70)


def test_a_spent_budget_stops_what_would_cost_more(stand_in, capsys):
    row = {"time": time.time() - 3600, "per_hour": 99.9}
    ledger = stand_in.file.with_suffix(".svit.ledger.jsonl")
    ledger.write_text(json.dumps(row) + "\n")
    assert stand_in.svit("create") == 1
    assert "would go beyond its budget of $100.00" in capsys.readouterr().err
    assert "queued-resources create" not in stand_in.calls


@pytest.mark.parametrize(
    "codes, verdict",
    [
        ((None, None), "running"),
        ((0, 0), "done"),
        ((0, None), "running"),
        ((75, None), "again"),
        ((76, 143), "again"),
        ((137, 0), "again"),
        ((76, 1), "broken"),
        ((2, 2), "broken"),
        ((-1, None), "none"),
    ],
)
def test_verdicts(codes, verdict):
    """-1: not started there. The codes are of docs/training.md."""
    jobs = [
        HostJob("h", "none") if c == -1 else HostJob("h", "running" if c is None else "ended", c)
        for c in codes
    ]
    assert judge(jobs) == verdict
