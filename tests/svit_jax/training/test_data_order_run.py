"""Runs on padded and on mixed data: what a step eats is what the plan says, and it resumes."""

import dataclasses
import json

import numpy as np
import pytest
from small_run import SMALL_RUN

from data_pipeline.common.errors import UserError
from data_pipeline.loading.batch import Batch
from data_pipeline.loading.grouping import bucket_lengths
from data_pipeline.loading.pipeline import Loaded
from data_pipeline.loading.plan import Plan
from data_pipeline.records.writer import write_dataset
from svit_jax.sharding.mesh import make_mesh
from svit_jax.training.inputs import Ahead, Inputs, batch_line
from svit_jax.training.loop import train
from svit_jax.training.program import compile_run
from svit_jax.training.start import initial_state
from svit_jax.training.telemetry import read_metrics


@pytest.fixture(scope="module")
def text_only(tmp_path_factory):
    """A dataset without a picture."""
    root = tmp_path_factory.mktemp("text_only")
    turns = [{"from": "human", "value": "What is red?"}, {"from": "gpt", "value": "A ball."}]
    rows = [{"id": f"t{n}", "conversations": turns * (1 + n % 3)} for n in range(20)]
    (root / "rows.json").write_text(json.dumps(rows))
    write_dataset([root / "rows.json"], root, root / "data", "text")
    return root / "data"


PADDED = "data.plan=padded", "data.row_length=192", "train.steps=3", "checkpoint.every=100"


def padded_to(batch: Batch, length: int) -> Batch:
    """The batch with empty places behind its rows."""
    fill = {"vision_index": -1}
    arrays = {field.name: getattr(batch, field.name) for field in dataclasses.fields(Batch)}
    for name, array in arrays.items():
        if name != "images":
            behind = [(0, 0), (0, length - array.shape[1])]
            arrays[name] = np.pad(array, behind, constant_values=fill.get(name, 0))
    return Batch(**arrays)


def test_a_padded_run_learns_what_batches_of_the_full_length_would(
    make_run, tiny_data, text_only, tmp_path
):
    """On pictures and on text alone, whose batches are shorter; against the step that other runs
    use, on the same batches with empty places behind."""
    both = f"data.train={tiny_data.dataset}=1,{text_only}=1"
    config = make_run("finetune", *SMALL_RUN, both, *PADDED)
    train(config, tmp_path / "run")
    found = read_metrics(tmp_path / "run")
    inputs = Inputs.open(config, tmp_path / "run", keep_plan=True)
    plan, placement, step = compile_run(config, 3, make_mesh(config.mesh))
    state, lengths = initial_state(config, plan), []
    for loaded in inputs.loader(config, placement.local_rows, 0, 3):
        lengths.append(loaded.batch.tokens.shape[1])
        state, metrics = step(state, placement.put(padded_to(loaded.batch, 192)))
        row = found[loaded.step]
        assert float(metrics["target_tokens"]) == row["target_tokens"] > 0
        assert float(metrics["loss"]) == pytest.approx(row["loss"], rel=1e-4)
    assert len(set(lengths)) > 1 and set(lengths) <= set(bucket_lengths(192))


def test_a_mixed_run_has_its_shares_and_is_bound_to_them(
    make_run, tiny_data, text_only, tmp_path, capfd
):
    mixed = f"data.train={tiny_data.dataset}=3,{text_only}=1"
    config = make_run("finetune", *SMALL_RUN, mixed, "train.steps=2")
    train(config, tmp_path / "run")
    said = capfd.readouterr().err
    assert "part 1: 75.0% of the rows" in said and "part 2: 25.0% of the rows" in said
    plan = Plan.load(tmp_path / "run" / "plan")
    first_of_text = plan.inputs.parts[0][0]
    rows = [plan.row(index) for index in range(16)]
    assert sum((row[:, 0] >= first_of_text).all() for row in rows) == 4
    assert sum((row[:, 0] < first_of_text).all() for row in rows) == 12
    other = make_run("finetune", *SMALL_RUN, mixed[:-1] + "2", "train.steps=2")
    with pytest.raises(UserError, match=r"plan .* was made of other inputs \(parts"):
        train(other, tmp_path / "run")


def test_the_batch_line_says_what_the_paper_wants(trained):
    plan = Plan.load(trained.workdir / "plan")
    found = plan.statistics()
    each = found.dialogues / found.rows
    line = batch_line(plan, 8)
    assert f"8 rows a step hold {8 * each:.0f} dialogues" in line
    assert f"data.batch_size={round(128 / each)} holds" in line
    near = round(128 / each)
    assert ("paper" in batch_line(plan, near)) == (abs(near * each / 128 - 1) > 0.05)


def small_batch(number: int) -> Batch:
    whole = np.full((1, 2), number, np.int32)
    images = np.zeros((1, 0, 1, 1, 3), np.uint8)
    return Batch(whole, np.zeros((1, 2), np.float32), whole, whole, images, whole)


def test_the_next_batch_is_made_and_put_while_the_step_runs():
    put, closed = [], []

    def loader():
        try:
            for step in range(3):
                yield Loaded(step, small_batch(step), (), ())
            raise OSError("a shard is gone")
        finally:
            closed.append(True)

    def place(batch):
        put.append(int(batch.tokens[0, 0]))
        return small_batch(10 + put[-1])

    batches = Ahead(loader(), place)
    for step in range(3):
        loaded, batch = next(batches)
        assert (loaded.step, int(batch.tokens[0, 0])) == (step, 10 + step)
        while not batches.ready:
            pass
        assert put == list(range(min(step + 2, 3)))
    # An error belongs to the step that would have had the batch.
    with pytest.raises(OSError, match="a shard is gone"):
        next(batches)
    batches.close()
    assert closed == [True]
