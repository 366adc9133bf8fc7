"""Checkpoints that stay, against the rule worked out by hand; saves that run in the background."""

import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.manager import Checkpoints, load_parameters
from svit_jax.checkpoints.retention import Retention

MOMENTS = {"count": np.zeros(1)}
LOSSES = {1: 5.0, 2: 1.0, 3: 4.0, 4: math.nan, 5: -math.inf, 6: 2.0, 7: 3.0}


def parameters(step: int) -> dict[str, jax.Array]:
    return {"block/kernel": jnp.full((4, 3), float(step))}


def kept_steps(folder) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}


def save_all(folder, retention: Retention, losses: dict[int, float | None]) -> None:
    with Checkpoints(folder, retention) as checkpoints:
        for step, loss in losses.items():
            metrics = {} if loss is None else {"loss": loss, "other": 0.0}
            checkpoints.save(step, parameters(step), MOMENTS, {"step": step}, metrics)


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (Retention(keep=2), {6, 7}),
        (Retention(keep=1, keep_every=3), {3, 6, 7}),
        # What is not finite is never the best: neither the nan of 4 nor the -inf of 5.
        (Retention(keep=1, best="min:loss"), {2, 7}),
        (Retention(keep=1, best="max:loss"), {1, 7}),
        (Retention(keep=2, keep_every=4, best="min:loss"), {2, 4, 6, 7}),
    ],
)
def test_what_stays(tmp_path, retention, expected):
    save_all(tmp_path / "c", retention, LOSSES)
    assert kept_steps(tmp_path / "c") == expected


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    retention = Retention(keep=1, best="min:loss")
    save_all(tmp_path / "c", retention, {1: 5.0, 2: 1.0, 3: 4.0})
    save_all(tmp_path / "c", retention, {4: 2.0, 5: None})
    assert kept_steps(tmp_path / "c") == {2, 5}
    save_all(tmp_path / "c", retention, {6: 0.5, 7: 3.0})
    assert kept_steps(tmp_path / "c") == {6, 7}


def test_a_metric_that_is_not_measured_yet_is_said_and_not_fatal(tmp_path, capsys):
    retention = Retention(keep=1, best="min:held_out_loss")
    save_all(tmp_path / "c", retention, {1: 5.0, 2: 1.0})
    assert kept_steps(tmp_path / "c") == {2}
    assert "the metrics so far are loss, other" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep_every": -1}, {"best": "loss"}])
def test_a_rule_that_means_nothing_is_refused(wrong):
    with pytest.raises(UserError, match=r"checkpoint\.(keep|best) is"):
        Retention(**wrong)


def test_a_save_runs_in_the_background_and_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    """While the last part of the write is held up, `save` has returned, what it saved may change,
    and the checkpoint does not exist; it does, with the old values, once the write may end."""
    written, go_on = threading.Event(), threading.Event()
    true = ocp.JsonCheckpointHandler._save_fn

    async def held_up(*arguments, **keywords):
        written.set()
        assert go_on.wait(60)
        return await true(*arguments, **keywords)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", held_up)
    change = jax.jit(lambda values: jax.tree.map(lambda x: x + 1, values), donate_argnums=0)
    values = parameters(0)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in values.items()}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, values, MOMENTS, {"step": 1})
        values = jax.block_until_ready(change(values))
        assert written.wait(60)
        assert kept_steps(tmp_path / "c") == set()
        go_on.set()
    assert kept_steps(tmp_path / "c") == {1}
    found = load_parameters(tmp_path / "c" / "1", shapes)
    np.testing.assert_array_equal(found["block/kernel"], np.zeros((4, 3)))
    np.testing.assert_array_equal(values["block/kernel"], np.ones((4, 3)))


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path):
    save_all(tmp_path / "c", Retention(), {1: 1.0})
    torn = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    (torn / "parameters").mkdir(parents=True)
    (torn / "parameters" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, parameters(2), MOMENTS, {"step": 2})
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"1", "2"}
