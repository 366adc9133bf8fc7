"""Experiments without devices: which plans are run, what becomes of rows, and what is compared."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from plans import GIB, a_plan

from data_pipeline.common.errors import UserError
from svit_jax.planning.plan import Plan
from tpu_scripts.experiments.__main__ import main
from tpu_scripts.experiments.comparison import Compared, ranking
from tpu_scripts.experiments.measure import summarised
from tpu_scripts.experiments.report import Report
from tpu_scripts.experiments.rows import Rows, StopError
from tpu_scripts.experiments.shortlist import check_keys, read_shortlist, row_name


def measured(tokens_per_second: float, **changed) -> dict:
    return {
        "seconds": 2.5,
        "tokens_per_second": tokens_per_second,
        "mfu": 0.3,
        "peak_memory": 9 * GIB,
        "data_wait": 0.01,
        "compile_seconds": 60.0,
        "device_kind": "TPU v5 lite",
        "devices": 8,
        "versions": {"jax": "0.11.0", "jaxlib": "0.11.0"},
        **changed,
    }


def test_the_fastest_that_fit_are_run(tmp_path):
    plans = [a_plan(1, 8, 100.0), a_plan(4, 2, 300.0), a_plan(8, 1, 900.0, memory=16.0)]
    sweep = {"candidates": [{"plan": plan.to_json()} for plan in plans] + [{"plan": None}]}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    (tmp_path / "saved.json").write_text(json.dumps(a_plan(2, 4, 200.0).to_json()))
    files = [tmp_path / "sweep.json", tmp_path / "saved.json", tmp_path / "saved.json"]
    found = read_shortlist(files, top=2)
    assert [plan.mesh["fsdp"] for plan in found.plans] == [4, 2]
    assert found.left_out == (
        "1 plans that do not fit",
        "1 that are slower than the first 2 (--top)",
    )


def test_what_is_no_shortlist_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"candidates": [{"plan": {"config": "c.py"}}]}')
    with pytest.raises(UserError, match=r"other\.json is no shortlist .*svit plan --sweep --json"):
        read_shortlist([tmp_path / "other.json"], 8)
    (tmp_path / "large.json").write_text(json.dumps(a_plan(8, 1, 1.0, memory=16.0).to_json()))
    with pytest.raises(UserError, match=r"none of the 1 plans .* fits"):
        read_shortlist([tmp_path / "large.json"], 8)


def test_what_was_planned_may_not_be_changed():
    plans = [a_plan(8, 1, 1.0)]
    check_keys(plans, ("data.train=dataset", "mesh.fsdp=8"))
    with pytest.raises(UserError, match=r"--mesh\.fsdp=4 is not what was planned \(8\)"):
        check_keys(plans, ("mesh.fsdp=4",))


def test_another_measurement_is_another_row():
    plan = a_plan(8, 1, 1.0)
    one = row_name(plan, ("data.train=a",), 20, 5)
    assert one == row_name(Plan.from_json(json.loads(json.dumps(plan.to_json()))), *REST)
    others = {
        row_name(a_plan(4, 2, 1.0), *REST),
        row_name(plan, ("data.train=b",), 20, 5),
        row_name(plan, ("data.train=a",), 30, 5),
    }
    assert len(others) == 3 and one not in others


REST = (("data.train=a",), 20, 5)

SAYS = "import sys; print(sys.argv[1], file=sys.stderr); sys.exit(int(sys.argv[2]))"


def says(text: str, code: int) -> list[str]:
    return [sys.executable, "-c", SAYS, text, str(code)]


def writes(rows: Rows, name: str) -> list[str]:
    """A measurement that leaves a mark each time that it is made."""
    script = (
        "import json, pathlib, sys; row = pathlib.Path(sys.argv[1]); "
        "row.parent.mkdir(exist_ok=True, parents=True); "
        "row.with_suffix('.made').open('a').write('x'); row.write_text('{\"seconds\": 1}')"
    )
    return [sys.executable, "-c", script, str(rows.row_file(name))]


def test_a_row_is_measured_once(tmp_path):
    for _ in range(2):
        rows = Rows(tmp_path)
        rows.run("row", writes(rows, "row"))
    assert rows.measured("row") == {"seconds": 1}
    assert (tmp_path / "rows" / "row.made").read_text() == "x"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (says("svit: the mesh asks for 16 devices and there are 8.", 1), "the mesh asks for 16"),
        (
            says(
                "Traceback\njax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Used 17G of 15G hbm", 1
            ),
            "RESOURCE_EXHAUSTED: Used 17G of 15G hbm",
        ),
        (says("stacks", 75), "it hung"),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "ended by SIGKILL"),
    ],
)
def test_a_row_that_fails_is_a_row_with_its_reason(tmp_path, command, reason):
    rows = Rows(tmp_path)
    rows.run("row", command)
    assert reason in (rows.failure("row") or "")
    rows.run("row", writes(rows, "row"))
    assert rows.measured("row") is None, "it was run again, though it had failed"
    shutil.rmtree(tmp_path / "rows" / "row.failed")
    rows.run("row", writes(rows, "row"))
    assert rows.measured("row") and rows.failure("row") is None


def test_of_several_hosts_the_one_that_knows_says_why(tmp_path):
    """One host ran out of memory; this one lost it (76), and goes on when the other has ended."""
    other, this = Rows(tmp_path, 2, patience=0.1), Rows(tmp_path, 2, patience=20.0)
    other._me = "other"
    with pytest.raises(StopError) as stopped:  # alone it can't go on
        other.run("row", says("svit: out of memory.", 1))
    assert stopped.value.code == 76
    this.run("row", says("svit: process 1 of 2 lost another process", 76))
    assert this.failure("row") == other.failure("row") == "out of memory."


def test_a_lost_host_stops_the_sweep_and_leaves_no_row(tmp_path):
    rows = Rows(tmp_path, 2, patience=0.1)
    with pytest.raises(StopError) as stopped:
        rows.run("row", says("svit: lost another process", 76))
    assert stopped.value.code == 76
    assert not list(tmp_path.rglob("*.json"))


STOPPED = """
import sys
from tpu_scripts.experiments.rows import Rows, StopError
child = '''
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path(sys.argv[1], "started").touch()
time.sleep(60)
'''
try:
    Rows(sys.argv[1]).run("row", [sys.executable, "-c", child, sys.argv[1]])
except StopError as stopped:
    sys.exit(stopped.code)
"""


def test_sigterm_reaches_the_row_and_stops_the_sweep(tmp_path):
    sweep = subprocess.Popen([sys.executable, "-c", STOPPED, str(tmp_path)])
    end = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    sweep.terminate()
    assert sweep.wait(timeout=60) == 143
    assert not list(tmp_path.rglob("*.json"))


def test_hosts_that_share_no_folder_are_told(tmp_path):
    with pytest.raises(UserError, match="all hosts must share the folder of --out"):
        Rows(tmp_path).run("row", [sys.executable, "-c", ""])


def test_a_step_is_the_median_and_its_work_the_mean():
    """By hand: 100, 100 and 400 tokens in 1, 2 and 4 s on two devices."""
    rows = [
        {"seconds_per_step": 1.0, "tokens_per_second": 100.0, "data_wait": 0.0, "mfu": 0.4},
        {"seconds_per_step": 2.0, "tokens_per_second": 50.0, "data_wait": 0.5, "mfu": 0.2},
        {"seconds_per_step": 4.0, "tokens_per_second": 100.0, "data_wait": 0.0, "mfu": 0.1},
    ]
    found = summarised(rows, devices=2)
    assert found["steps"] == 3 and found["seconds"] == 2.0
    assert found["spread"] == 1.5  # quartiles 1.5 and 3
    assert found["tokens_per_second"] == pytest.approx(200 / 2 / 2)
    assert found["mfu"] == pytest.approx(0.4 / 2)
    assert found["data_wait"] == pytest.approx(1 / 7)
    assert summarised([{**row, "mfu": 0.0} for row in rows], 2)["mfu"] == 0.0


def test_errors_are_measured_over_planned():
    row = Compared(a_plan(8, 1, 1000.0), measured(750.0))
    assert row.errors == pytest.approx(
        {"seconds": 0.25, "tokens_per_second": -0.25, "mfu": -0.25, "peak_memory": -0.1}
    )
    unknown = Compared(a_plan(8, 1, 1000.0), measured(750.0, mfu=None, peak_memory=None))
    assert unknown.errors.keys() == {"seconds", "tokens_per_second"}


def test_rank_agreement_by_hand():
    """Planned 4 > 3 > 2 > 1, measured 3, 4, 1, 1: of six pairs (4, 3) is turned, (2, 1) a tie."""
    speeds = [(4.0, 3.0), (3.0, 4.0), (2.0, 1.0), (1.0, 1.0)]
    rows = [Compared(a_plan(8, 1, planned), measured(found)) for planned, found in speeds]
    found = ranking([*rows, Compared(a_plan(8, 1, 9.0), None, "out of memory")])
    assert found and (found.pairs, found.agreeing, found.best) == (6, 4, 1)
    assert found.tau == pytest.approx((4 - 1) / 6)
    assert found.regret == pytest.approx(1 - 3 / 4)
    assert ranking(rows[:1]) is None


def test_the_report_has_every_row(tmp_path):
    rows = (
        Compared(a_plan(8, 1, 1000.0), measured(750.0)),
        Compared(a_plan(4, 2, 800.0), None, "RESOURCE_EXHAUSTED <hbm>"),
        Compared(a_plan(2, 4, 700.0), measured(800.0, versions={"jax": "0.12.0"})),
        Compared(a_plan(1, 8, 600.0)),
    )
    Report(rows, 20, 5, ("2 plans that do not fit",)).write(tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert [row["state"] for row in found["rows"]] == [
        *("measured", "failed", "measured", "not run yet")
    ]
    assert found["ranking"]["agreeing"] == 0 and found["ranking"]["best"] == 2
    assert found["rows"][0]["errors"]["tokens_per_second"] == pytest.approx(-0.25)
    text = (tmp_path / "report.md").read_text()
    for said in (
        "Planned for 8 x TPU v5 lite, run on 8 x TPU v5 lite.",
        "Planned with jax 0.11.0, run with 0.12.0.",
        "0 of 1 pairs come as planned",
        "the plan's first choice is 6.2% slower",
        "2 plans that do not fit",
        "1 rows are not run yet",
        "-25.0%",
        "RESOURCE_EXHAUSTED <hbm>",
    ):
        assert said in text, said
    assert "REHEARSAL" not in text
    page = (tmp_path / "report.html").read_text()
    assert "RESOURCE_EXHAUSTED &lt;hbm&gt;" in page and "-25.0%" in page


@pytest.mark.parametrize(
    ("planned", "ran", "rehearsal"),
    [
        ("TPU v5 lite", "TPU v5 lite", False),
        ("NVIDIA H100", "NVIDIA H100 80GB HBM3", False),
        ("TPU v5", "TPU v5 lite", True),
        ("NVIDIA H100", "cpu", True),
    ],
)
def test_a_plan_of_other_hardware_makes_a_rehearsal(planned, ran, rehearsal):
    row = Compared(a_plan(8, 1, 1.0, kind=planned), measured(1.0, device_kind=ran))
    assert row.rehearsal is rehearsal
    assert ("REHEARSAL" in Report((row,), 20, 5).markdown()) is rehearsal


def test_wrong_usage_is_told(tmp_path, capsys):
    for wrong in (["--steps=5", "--warm-up=4"], ["--dat"], ["--data.train"]):
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / "plans.json"), "--out", str(tmp_path), *wrong])
        assert ended.value.code == 2
    assert main([str(tmp_path / "plans.json"), "--out", str(tmp_path)]) == 1
    assert "there is no file" in capsys.readouterr().err
