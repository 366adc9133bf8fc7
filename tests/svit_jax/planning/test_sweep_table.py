"""A sweep's table, CSV and JSON, on closed-form plans, against what they were made of."""

import csv
import dataclasses
import io
import json

import pytest
from stand_in_planner import GIB, StandIn

from svit_jax.planning.sweep.grid import Candidate, Outcome
from svit_jax.planning.sweep.table import Sweep, csv_text, table_text

PAPER = Candidate("full.py", (), "toy:8", (1, 8, 1, 1), 4, 1, "full")
SMALL = dataclasses.replace(PAPER, rows=1)
LARGE = dataclasses.replace(PAPER, remat="none")
REFUSED = dataclasses.replace(PAPER, mesh=(1, 1, 8, 1))


@pytest.fixture
def sweep() -> Sweep:
    """One that fits, as the paper; one that fits, with fewer rows; one too large; two of none."""
    planner = StandIn(capacity=30)
    made = [Outcome(each, planner(each).plan) for each in (LARGE, SMALL, PAPER)]
    refused = Outcome(REFUSED, reason="40 heads, 8 devices", skipped=True)
    failed = Outcome(REFUSED, reason="out of memory, <b> & more")
    return Sweep.of([refused, failed, *made], "svit plan --sweep", compiles=4, known=0)


def test_the_table_ranks_marks_and_says_what_is_missing(sweep):
    lines = table_text(sweep, top=20).splitlines()
    # Memory, by StandIn's closed form: (200 / 8 + rows * 12 * kept + 0.5) GiB.
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert f"{25 + 4 * 12 * 0.04 + 0.5:.2f} of 30.00" in lines[1] and "132  " in lines[1]
    assert f"{25 + 12 * 0.04 + 0.5:.2f} of 30.00" in lines[2] and "33*" in lines[2]
    assert f"{25 + 4 * 12 + 0.5:.2f} of 30.00, 43.50 too much" in lines[3]
    assert lines[4] == "* not the paper's recipe: 33 dialogues a step, not 128"
    assert "5 candidates: 2 fit, 1 too large, 1 refused by the compiler, 1 skipped" in lines[5]
    assert "fsdp 8, 4 rows a device, remat full" in lines[5]
    assert lines[6:] == [
        "failed 1 x: out of memory, <b> & more",
        "skipped 1 x: 40 heads, 8 devices",
    ]
    short = table_text(sweep, top=1)
    assert "2 more plans" in short and "too much" not in short


def test_csv_has_every_candidate_and_exact_values(sweep):
    rows = list(csv.DictReader(io.StringIO(csv_text(sweep))))
    assert [row["status"] for row in rows] == ["fits", "fits", "too large", "failed", "skipped"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert (rows[0]["fsdp"], rows[0]["rows_per_device"], rows[0]["batch_size"]) == ("8", "4", "32")
    assert int(rows[0]["memory_total"]) == int((25 + 4 * 12 * 0.04 + 0.5) * GIB)
    assert rows[0]["departures"] == "" and rows[1]["departures"]
    assert rows[3]["reason"] == "out of memory, <b> & more" and rows[3]["seconds"] == ""


def test_json_has_the_plans(sweep):
    found = json.loads(json.dumps(sweep.to_json()))
    assert found["candidates"][0]["plan"] == json.loads(
        json.dumps(StandIn(capacity=30)(PAPER).plan.to_json())
    )
    assert found["candidates"][0]["settings"] == list(PAPER.settings)
    assert found["candidates"][4]["plan"] is None and found["compiles"] == 4


def test_nothing_fits():
    made = [Outcome(each, StandIn(capacity=1)(each).plan) for each in (PAPER, SMALL)]
    sweep = Sweep.of(made, "svit plan --sweep", compiles=2, known=0)
    assert sweep.best is None and "None fits" in table_text(sweep, top=20)
    assert "0 candidates" in table_text(Sweep.of([], "", 0, 0), top=20)
