"""Steps without a finite loss or gradient: skipped, counted, and too many in a row stop the run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import SMALL_RUN
from test_step_on_meshes import random_batch

from data_pipeline.common.errors import UserError
from data_pipeline.loading.plan import Plan
from data_pipeline.records.source import open_records
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training import inputs
from svit_jax.training import step as step_module
from svit_jax.training.loop import train
from svit_jax.training.objective import Sums
from svit_jax.training.program import compile_run
from svit_jax.training.replay import replay
from svit_jax.training.telemetry import read_metrics


def finite_loss_without_gradient(model, batch, compute, chunk, dropout) -> Sums:
    """d sqrt(x)/dx is infinite at 0: the loss is 0 and the gradient is not a number."""
    one = jnp.float32(1)
    return Sums(jnp.sqrt(jnp.sum(0 * model.projector.fc1[...])), one, one)


def infinite_loss_with_gradient(model, batch, compute, chunk, dropout) -> Sums:
    one = jnp.float32(1)
    return Sums(jnp.sum(model.projector.fc1[...]) + jnp.inf, one, one)


@pytest.mark.parametrize("sums", [finite_loss_without_gradient, infinite_loss_with_gradient])
def test_a_skipped_step_changes_nothing_but_its_number(make_run, monkeypatch, sums):
    config = make_run("finetune", *SMALL_RUN)
    batch = random_batch(config)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    good_plan, placement, good = compile_run(config, 10, mesh)
    state = good_plan.from_scratch(config.model, 0)
    for _ in range(2):  # the first update's rate is 0
        state, metrics = good(state, placement.put(batch))
    assert float(metrics["skipped"]) == 0
    before = jax.device_get(state)
    monkeypatch.setattr(step_module, "batch_sums", sums)
    _, _, bad = compile_run(config, 10, mesh)
    state, metrics = bad(state, placement.put(batch))
    finite = bool(np.isfinite(metrics["loss"])), bool(np.isfinite(metrics["gradient_norm"]))
    assert finite == ((True, False) if sums is finite_loss_without_gradient else (False, True))
    assert float(metrics["skipped"]) == 1
    after = jax.device_get(state)
    assert (int(before.step), int(after.step)) == (2, 3)
    np.testing.assert_array_equal(after.trained["projector/fc1"], before.trained["projector/fc1"])
    assert optax.tree_utils.tree_sum(before.optimizer) != 0
    jax.tree.map(np.testing.assert_array_equal, after.parameters(), before.parameters())
    jax.tree.map(np.testing.assert_array_equal, after.optimizer, before.optimizer)


class StopError(Exception):
    pass


def poison(monkeypatch, *steps: int, rows: slice = slice(None)) -> None:
    """Makes the loader give rows of infinite weights at these steps (0-based)."""
    true = inputs.make_loader

    def poisoned(*arguments, **keywords):
        for loaded in true(*arguments, **keywords):
            if loaded.step in steps:
                weights = loaded.batch.loss_weights[rows]
                weights[weights > 0] = np.inf
            yield loaded

    monkeypatch.setattr(inputs, "make_loader", poisoned)


def test_skipped_steps_are_counted_through_a_resume(make_run, tmp_path, monkeypatch):
    config = make_run("finetune", *SMALL_RUN, "train.max_skipped=2")
    poison(monkeypatch, 2, 4)

    def stop(step, state):
        raise StopError

    with pytest.raises(StopError):
        train(config, tmp_path, hooks=((5, stop),))
    result = train(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert [bool(np.isfinite(row["loss"])) for row in rows] == [1, 1, 0, 1, 0, 1]
    assert result.metrics["skipped"] == 2


def test_too_many_in_a_row_stop_the_run_and_name_the_records(
    make_run, tiny_data, tmp_path, monkeypatch
):
    config = make_run("finetune", *SMALL_RUN, "train.max_skipped=3")
    poison(monkeypatch, 0, 2, 3, 4)
    with pytest.raises(UserError, match=r"3 steps in a row .* up to step 5") as error:
        train(config, tmp_path)
    assert [row["skipped"] for row in read_metrics(tmp_path)] == [1, 1, 2, 3, 4]

    plan, source = Plan.load(tmp_path / "plan"), open_records(tiny_data.dataset)
    dump = [json.loads(line) for line in (tmp_path / "non_finite.jsonl").open()]
    assert [line["step"] for line in dump] == [3, 4, 5]
    for line in dump:
        assert [row["row"] for row in line["rows"]] == [
            8 * (line["step"] - 1) + n for n in range(8)
        ]
        for row in line["rows"]:
            expected = [
                (source[record].image_id, source[record].dialogues[place].id, tokens)
                for record, place, tokens, _ in plan.row(row["row"]).tolist()
            ]
            found = [(d["id"], d["dialogue"], d["tokens"]) for d in row["dialogues"]]
            assert found == expected
    named = str(error.value).split("holds the records ")[1].split(";")[0]
    in_batch = {d["id"] for row in dump[-1]["rows"] for d in row["dialogues"]}
    assert set(named.split(", ")) == in_batch and len(in_batch) <= 8


def test_a_replay_meets_the_step_again_and_finds_the_row(make_run, tmp_path, monkeypatch):
    config = make_run("finetune", *SMALL_RUN, "train.max_skipped=3")
    poison(monkeypatch, 2, 3, 4, rows=slice(6, 7))
    with pytest.raises(UserError, match="with --replay finds the rows"):
        train(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = replay(config, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    logged = read_metrics(tmp_path)[-1]
    assert found.step == logged["step"] == 5
    for name in ("loss", "gradient_norm", "target_tokens"):
        np.testing.assert_array_equal(found.metrics[name], logged[name])
    assert [row.row for row in found.rows] == list(range(32, 40))
    assert [row.finite for row in found.rows] == [True] * 6 + [False, True]
    assert f"not finite by themselves: row 38 ({', '.join(found.rows[6].records)})" in str(found)


def test_only_a_run_that_stopped_so_can_be_replayed(trained):
    with pytest.raises(UserError, match=r"has no non_finite\.jsonl"):
        replay(trained.config, trained.workdir)
