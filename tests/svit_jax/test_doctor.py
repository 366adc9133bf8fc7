"""`svit doctor`: what it finds on this host, how it judges hosts, and two real processes."""

import dataclasses
import json
from importlib.metadata import version

import jax
import pytest
from several_processes import codes, started
from small_run import SMALL

from svit_jax import doctor
from svit_jax.cli import main
from svit_jax.doctor import PACKAGES, Host, Wanted, examine, judge

QUICK = {"free": 0.0, "megabytes": 1, "seconds": 0.1}


def host(name: str, **changed) -> Host:
    versions = dict.fromkeys(PACKAGES, "1.0") | changed.pop("versions", {})
    return Host(name, versions, **{"devices": 4, "kind": "TPU v5 lite", **changed})


@pytest.fixture
def spec(configs) -> str:
    return f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny"


def test_one_host_is_looked_at_whole(tiny_data, spec, tmp_path):
    overrides = (*SMALL, f"data.train={tiny_data.dataset}", f"data.tokenizer={tiny_data.tokenizer}")
    wanted = Wanted(
        str(tmp_path / "run"), config=spec, overrides=overrides, step_seconds=1e6, **QUICK
    )
    report = examine(dataclasses.replace(wanted, devices=jax.device_count()))
    assert report.problems == ()
    (found,) = report.hosts
    assert found.devices == jax.device_count() and found.clock == 0
    assert found.versions["jax"] == jax.__version__
    assert found.versions["flax"] == version("flax")
    assert found.settings["data.batch_size"] == "8" and found.settings["optim.trainable"]
    # Eight rows of two pictures, all of them this host's, in a million seconds.
    assert found.needed == pytest.approx(16e-6)
    speeds = ["reduced", "workdir_write", "workdir_read", "data_write", "data_read", "records"]
    assert all(getattr(found, name) > 0 for name in speeds) and found.pictures > 0
    assert list((tmp_path / "run").iterdir()) == []
    assert not [path for path in tiny_data.dataset.iterdir() if ".doctor" in path.name]
    assert report.verdict.startswith(f"fit to train: 1 host processes, {found.devices} devices")
    # A row for the host below two of the header, and as many cells in each.
    header, rule, row, versions = report.table().splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert f"jax {jax.__version__}" in versions


def test_what_is_wrong_on_one_host(spec, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    wanted = Wanted(
        str(tmp_path / "file" / "run"),
        data=str(tmp_path / "absent"),
        config=spec,
        overrides=("train.sed=1",),
        **QUICK,
    )
    report = examine(dataclasses.replace(wanted, devices=10_000))
    said = "\n".join(report.problems)
    assert "config has no key 'train.sed'" in said
    assert f"writing and reading in {tmp_path / 'file' / 'run'} failed: NotADirectoryError" in said
    assert "absent: there is no such folder" in said
    assert f"there are {jax.device_count()} devices, and 10000 were expected" in said
    assert report.verdict.startswith("not fit to train")


def test_a_wrong_sum_is_found(monkeypatch, tmp_path):
    """The first device's part is 7, where all believe that it is 1."""
    real = jax.make_array_from_callback

    def spoiled(shape, sharding, part):
        def of(index):
            return part(index) + (6 if not index[0].start else 0)

        return real(shape, sharding, of)

    monkeypatch.setattr(doctor.jax, "make_array_from_callback", spoiled)
    report = examine(Wanted(str(tmp_path), **QUICK))
    assert len(report.problems) == jax.device_count()
    assert all("an all-reduce is wrong on" in problem for problem in report.problems)


def test_a_workdir_that_gives_back_other_bytes(monkeypatch, tmp_path):
    read = doctor.timed_read
    monkeypatch.setattr(doctor, "timed_read", lambda path, most: (b"x", read(path, most)[1]))
    (problem,) = examine(Wanted(str(tmp_path), **QUICK)).problems
    assert "gives back other bytes than were written" in problem


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"versions": {"jax": "0.9"}}, "C has jax 0.9, and A has 1.0."),
        ({"versions": {"libtpu": "absent"}}, "C has libtpu absent, and A has 1.0."),
        ({"devices": 3}, "C sees 3 devices (TPU v5 lite), and A sees 4 (TPU v5 lite)."),
        ({"kind": "cpu"}, "C sees 4 devices (cpu), and A sees 4 (TPU v5 lite)."),
        (
            {"settings": {"train.seed": "1", "optim.b1": "0.9"}},
            "C has another config than A: it differs in train.seed.",
        ),
        ({"clock": -7.4}, "C has a clock 7 s behind process 0's."),
        ({"free": 1.25}, "C has 1.2 GB of free disk, less than 5."),
        ({"records": 99.0, "needed": 100.0}, "C reads 99 records/s, and the step wants up to 100."),
        ({"problems": ["C: it burns."]}, "C: it burns."),
    ],
)
def test_the_odd_host_is_named(changed, message):
    usual = {"settings": {"train.seed": "0", "optim.b1": "0.9"}, "free": 50.0}
    good = [host("A", **usual), host("B", clock=4.9, records=100.0, needed=99.0, **usual)]
    assert judge(good, Wanted("run", devices=8)) == []
    odd = host("C", **{**usual, **changed})
    assert judge([*good, odd], Wanted("run")) == [message]
    if "clock" not in changed:
        assert judge([odd, *good], Wanted("run")) == [message]


def test_the_command_ends_with_1_and_says_why(tmp_path, capsys):
    quick = ["--megabytes=1", "--seconds=0.1", f"--workdir={tmp_path / 'run'}"]
    assert main(["doctor", "--free-gb=0", *quick]) == 0
    assert "\nfit to train: " in capsys.readouterr().out
    assert main(["doctor", "--json", "--free-gb=1e9", *quick]) == 1
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert not report["fit"] and len(report["problems"]) == 1
    assert "GB of free disk, less than 1e+09" in report["problems"][0]
    assert said.err.startswith("svit: not fit to train: ") and report["problems"][0] in said.err


def test_two_processes_whose_configs_differ(spec, tmp_path):
    """Each has a file of its own that says what its config is, as hosts have."""
    shared = tmp_path / "config.py"
    shared.write_text(
        "import importlib.util, os\n"
        f"spec = importlib.util.spec_from_file_location('stage', {spec.partition(':')[0]!r})\n"
        "stage = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(stage)\n"
        "def get_config():\n"
        "    config = stage.get_config('tiny')\n"
        "    config.train.seed = int(os.environ['JAX_PROCESS_ID'])\n"
        "    return config\n"
    )
    command = ["-m", "svit_jax.cli", "doctor", "--json", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config={shared}", "--free-gb=0", "--megabytes=1", "--devices=4"]
    with started(2, command, tmp_path / "logs", devices=2) as job:
        assert codes(job) == [1, 1]
    first, second = ((tmp_path / "logs" / f"{n}.log").read_text() for n in (0, 1))
    (line,) = [line for line in first.splitlines() if line.startswith("{")]
    report = json.loads(line)
    (problem,) = report["problems"]
    assert problem.startswith("process 1 of 2 (") and problem.endswith("differs in train.seed.")
    hosts = report["hosts"]
    assert [each["devices"] for each in hosts] == [2, 2]
    assert all(abs(each["clock"]) < 5 and each["reduced"] > 0 for each in hosts)
    assert problem in first and problem in second and "Traceback" not in first + second
    assert list((tmp_path / "run").iterdir()) == []
