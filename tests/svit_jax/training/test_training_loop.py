"""Runs on a small dataset: interrupted and resumed, staged, refused."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from small_run import SMALL_RUN

from data_pipeline.common.errors import UserError
from data_pipeline.records.pictures import Resize
from data_pipeline.records.writer import write_dataset
from svit_jax.checkpoints.manager import newest_checkpoint
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model, initial_model
from svit_jax.sharding.mesh import make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training import inputs
from svit_jax.training.loop import train
from svit_jax.training.program import total_steps
from svit_jax.training.start import initial_state
from svit_jax.training.state import plan_state
from svit_jax.training.telemetry import MetricsLog, read_metrics


def stored_parameters(workdir) -> dict[str, np.ndarray]:
    """The newest checkpoint's parameters, read by Orbax alone."""
    import orbax.checkpoint as ocp
    from flax import traverse_util

    with ocp.PyTreeCheckpointer() as reader:
        nested = reader.restore(newest_checkpoint(workdir) / "parameters")
    flat = traverse_util.flatten_dict(nested, sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


@pytest.fixture(scope="module")
def initial(trained) -> dict[str, np.ndarray]:
    parameters = jax.jit(lambda: flat_parameters(initial_model(trained.config.model, 0)))()
    return jax.device_get(parameters)


def test_metrics_have_a_row_for_each_logged_step(trained):
    rows = read_metrics(trained.workdir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(row["loss"]) and row["target_tokens"] > 0 for row in rows)
    assert trained.result.metrics == {k: v for k, v in rows[-1].items() if k != "step"}
    assert (trained.result.step, trained.result.bad_records) == (6, ())


def test_only_the_trainable_parameters_changed(trained, initial):
    after = stored_parameters(trained.workdir)
    assert after.keys() == initial.keys()
    for name, value in after.items():
        same = np.array_equal(value, initial[name])
        assert same == name.startswith("tower/"), name


def test_each_group_moved_at_its_rate(trained, initial):
    """Adam moves by about the rate a step: the decoder's, 5e-3, is 50 times the projector's."""
    after = stored_parameters(trained.workdir)
    moved = {name: np.abs(after[name] - initial[name]).max() for name in after}
    assert 1e-4 < moved["projector/fc1"] < 6e-4
    assert 5e-3 < moved["decoder/blocks/q"] < 3e-2


def test_learning_learns(trained):
    """Every batch is new, so the fall is not one of a batch learnt by heart."""
    losses = [row["loss"] for row in read_metrics(trained.workdir)]
    assert losses[-1] < losses[0] - 0.5


class StopError(Exception):
    pass


def test_interrupted_and_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch):
    workdir = tmp_path / "run"

    def stop(step, state):
        raise StopError

    # In step 3, with the checkpoint of step 2 behind it.
    with pytest.raises(StopError):
        train(trained.config, workdir, hooks=((3, stop),))
    assert newest_checkpoint(workdir).name == "2"
    # A kill tears the log's last line; records that failed from step 2 on will be met again.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    rows = [{"id": f"r{step}", "reason": "broken", "step": step} for step in (1, 2)]
    (workdir / "bad_records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    # Between the checkpoint of step 4 and its batch: the log must hold step 4 by then.
    true = inputs.make_loader

    def failing(*arguments, **keywords):
        for loaded in true(*arguments, **keywords):
            if loaded.step == 4:
                raise StopError
            yield loaded

    with monkeypatch.context() as patched, pytest.raises(StopError):
        patched.setattr(inputs, "make_loader", failing)
        train(trained.config, workdir)
    assert newest_checkpoint(workdir).name == "4"
    assert [row["step"] for row in read_metrics(workdir)] == [1, 2, 3, 4]

    seen = []
    result = train(trained.config, workdir, hooks=((2, lambda step, state: seen.append(step)),))
    assert seen == [4, 6]
    assert result.bad_records == ("r1",)
    assert read_metrics(workdir) == read_metrics(trained.workdir)
    ours, theirs = stored_parameters(workdir), stored_parameters(trained.workdir)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_muons_run_goes_on_to_the_same_parameters(make_run, tmp_path):
    muon = "optim.muon=decoder/blocks/(q|o|down)", "optim.rates=projector/.*=1e-4"
    config = make_run("finetune", "train.steps=3", *muon, "optim.learning_rate=5e-3")
    train(config, tmp_path / "whole")

    def stop(step, state):
        raise StopError

    with pytest.raises(StopError):
        train(config, tmp_path / "halves", hooks=((3, stop),))
    assert newest_checkpoint(tmp_path / "halves").name == "2"
    train(config, tmp_path / "halves")
    ours, theirs = stored_parameters(tmp_path / "halves"), stored_parameters(tmp_path / "whole")
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_finished_run_is_left_alone(trained):
    before = (trained.workdir / "metrics.jsonl").stat().st_mtime_ns
    result = train(trained.config, trained.workdir)
    assert (result.step, result.metrics) == (6, trained.result.metrics)
    assert (trained.workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_old_checkpoints_go(trained):
    kept = {p.name for p in (trained.workdir / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {"4", "6"}


def test_workdir_of_another_config_names_what_differs(trained, make_run):
    config = make_run(
        "finetune",
        *SMALL_RUN,
        "optim.learning_rate=3e-5",
        # These may differ, and are not what the error is about.
        "train.log_every=7",
        "checkpoint.keep=9",
        "mesh.tensor=2",
    )
    with pytest.raises(UserError) as error:
        train(config, trained.workdir)
    assert "belongs to another run (it differs in optim.learning_rate)" in str(error.value)


def test_where_and_how_often_may_change(trained):
    config = dataclasses.replace(
        trained.config,
        mesh=dataclasses.replace(trained.config.mesh, tensor=2),
        train=dataclasses.replace(trained.config.train, log_every=3),
    )
    assert train(config, trained.workdir).step == 6


def test_a_run_that_never_began_claims_nothing(make_run, tmp_path):
    """What stops a run before its first step can be mended in the same workdir."""
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=r"400 pieces, more than model\.decoder\.vocab=264"):
        train(make_run("finetune", "model.decoder.vocab=264"), workdir)
    with pytest.raises(UserError, match=r"mesh .* does not fit 8 devices"):
        train(make_run("finetune", "data.row_length=136", "mesh.tensor=3"), workdir)
    with pytest.raises(UserError, match=r"'batch' of size 6 does not divide"):
        train(
            make_run("finetune", "data.batch_size=6", "train.loss_groups=0", "train.steps=1"),
            workdir,
        )
    with pytest.raises(UserError, match="holds no checkpoint"):
        train(make_run("finetune", f"checkpoint.init={tmp_path / 'nothing'}"), workdir)
    assert not (workdir / "run.json").exists()


def test_pictures_that_were_resized_for_another_run_are_refused(tiny_data, make_run, tmp_path):
    rows, images = tiny_data.dataset.parent / "rows.json", tiny_data.pictures
    write_dataset([rows], images, tmp_path / "data", "tiny", resize=Resize(16))
    config = make_run("finetune", f"data.train={tmp_path / 'data'}")
    with pytest.raises(UserError, match=r"made for 16 pixels and data\.image_mode=pad.*wants 32"):
        train(config, tmp_path / "run")
    Resize(64).require_fit(32, "pad")
    with pytest.raises(UserError, match="image_mode=crop, but the run wants 64 and pad"):
        Resize(64, "crop").require_fit(64, "pad")


def test_stage_begins_with_another_runs_parameters_and_a_fresh_projector(trained, make_run):
    config = make_run("pretrain", f"checkpoint.init={trained.workdir}")
    # Another seed: a fresh projector must be seen to come from this run.
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=5))
    assert config.checkpoint.fresh == ("projector/.*",)
    trainable = frozenset({"projector/fc1"})
    plan = plan_state(config.model, trainable, optax.adam(1.0), make_mesh(config.mesh), Rules())
    state = initial_state(config, plan)
    assert int(state.step) == 0 and set(state.trained) == trainable
    before, after = stored_parameters(trained.workdir), jax.device_get(state.parameters())
    fresh = jax.jit(lambda: flat_parameters(initial_model(config.model, 5)))()
    assert after.keys() == before.keys()
    for name, value in after.items():
        if name.startswith("projector/"):
            np.testing.assert_array_equal(value, fresh[name], err_msg=name)
            if value.ndim > 1:
                assert not np.array_equal(value, before[name])
        else:
            np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_init_from_another_model_is_refused(trained, make_run, tmp_path):
    config = make_run(
        "finetune", f"checkpoint.init={trained.workdir}", "model.decoder.layers=3", "train.steps=1"
    )
    with pytest.raises(UserError, match=r"another model: .*decoder/blocks/.* has shape \(2, "):
        train(config, tmp_path / "run")


def test_unmatched_fresh_pattern_names_its_key(trained, make_run, tmp_path):
    config = make_run(
        "finetune", f"checkpoint.init={trained.workdir}", "checkpoint.fresh=projektor/.*"
    )
    with pytest.raises(UserError, match=r"checkpoint\.fresh has 'projektor/\.\*'"):
        train(config, tmp_path / "run")


def test_epochs_are_of_rows(make_run, trained):
    """Steps are ceil(epochs * rows / batch)."""
    from data_pipeline.loading.plan import Plan

    plan = Plan.load(trained.workdir / "plan")
    config = make_run("finetune", "train.epochs=2.5")
    expected = -(-5 * len(plan) // (2 * config.data.batch_size))
    assert total_steps(config, plan) == expected
    assert total_steps(trained.config, plan) == 6


def test_metrics_log_drops_what_came_after_its_step(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    MetricsLog(tmp_path, 2).close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]


def test_initialisation_is_abstract_first(trained):
    """A model's shapes are known without allocating it."""
    leaves = flat_parameters(abstract_model(trained.config.model)).values()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
