"""What `svit plan` prints of a plan, and what it says of two."""

import dataclasses
import json

import pytest

from svit_jax import planner
from svit_jax.cli import main
from svit_jax.planning.memory import DoesNotFitError
from svit_jax.planning.plan import Collective, Estimate, Memory, Plan
from svit_jax.planning.words import described, difference

GIB = 2**30
PLAN = Plan(
    config="configs/a.py",
    overrides=("data.batch_size=32",),
    topology="v5e:4x4",
    devices=16,
    device_kind="TPU v5 lite",
    mesh={"replica": 1, "fsdp": 16, "tensor": 1, "sequence": 1},
    work={
        "rows": 32.0,
        "row_length": 4096.0,
        "tokens": 122290.0,
        "samples": 132.5,
        "pictures": 124.5,
        "accumulate": 2.0,
    },
    choices={"mode": "full", "remat_decoder": "full", "rows_per_device": 1.0},
    memory=Memory(17 * GIB, 15 * GIB, {"weights": 10 * GIB, "temporaries": 7 * GIB}),
    collectives=(Collective("all-gather", ("fsdp",), "ici", 40, 3_000_000_000, 38),),
    flops={"model": 2e12, "hardware": 3e12},
    estimate=Estimate(2.0, {"matrix units": 1.5, "HBM": 1.0}, "matrix units", 3821.6, 0.4),
    departures=("a step holds 150 samples, not 128",),
    compile_seconds=30.0,
    versions={"jax": "0.10.2", "libtpu": "0.0.42.1"},
)


def test_a_page_says_what_matters():
    page = described(PLAN)
    for part in (
        "17.00 of 15.00 GiB: 2.00 GiB too much",
        "(1 row a device at a time, 2 times)",
        "all-gather  fsdp  ici      40     3.000    38",
        "2.000 s a step, bound by matrix units",
        "MFU 40.0%",
        "differs from the paper's recipe: a step holds 150 samples, not 128",
    ):
        assert part in page
    assert "less exact" not in page
    assert "less exact" in described(dataclasses.replace(PLAN, versions={"jax": "0.10.2"}))


def test_two_plans_differ_in_what_changed_alone(tmp_path, capsys):
    slower = dataclasses.replace(
        PLAN,
        estimate=dataclasses.replace(PLAN.estimate, seconds=3.0),
        collectives=(dataclasses.replace(PLAN.collectives[0], count=80),),
        compile_seconds=31.0,
    )
    changes = {
        "collectives.all-gather over fsdp.count": (40, 80),
        "estimate.seconds": (2.0, 3.0),
    }
    assert difference(PLAN, slower) == changes
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, plan in zip(files, (PLAN, slower), strict=True):
        file.write_text(json.dumps(plan.to_json()))
    assert main(["plan", "--json", "--diff", *map(str, files)]) == 0
    assert json.loads(capsys.readouterr().out) == {n: list(c) for n, c in changes.items()}


def test_terms_are_explained_without_a_config(capsys):
    assert main(["plan", "--explain"]) == 0
    assert "all-gather" in capsys.readouterr().out


def test_a_plan_wants_a_config_and_a_topology(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--topology", "v5e:4x4"])
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_refused_step_is_described_all_the_same(monkeypatch, capsys, options):
    def refuse(*_):
        raise DoesNotFitError("v5e:4x4 does not fit: take more chips.", PLAN.memory)

    monkeypatch.setattr(planner, "plan_config", refuse)
    assert main(["plan", "--config", "a.py", "--topology", "v5e:4x4", *options]) == 1
    said = capsys.readouterr()
    assert said.err == "svit: v5e:4x4 does not fit: take more chips.\n"
    if options:
        found = json.loads(said.out)
        assert found["memory"]["parts"] == dict(PLAN.memory.parts)
        assert found["reason"] == "v5e:4x4 does not fit: take more chips."
    else:
        assert said.out.splitlines() == [
            "memory a device: 17.00 of 15.00 GiB: 2.00 GiB too much",
            "  weights      10.000 GiB",
            "  temporaries  7.000 GiB",
        ]
