"""Batches against what each dialogue encodes to by itself; resuming; hosts; failures."""

import dataclasses

import numpy as np
import pytest
from memory_source import MemorySource

from data_pipeline.common.errors import UserError
from data_pipeline.loading import pipeline
from data_pipeline.loading.batch import Batch
from data_pipeline.loading.pipeline import ImageSpec, make_loader
from data_pipeline.loading.plan import build_plan, plan_inputs
from data_pipeline.text.encode import encode_dialogue
from data_pipeline.text.templates import PLAIN, V1

P, T, M, SIZE, B = 4, 160, 2, 8, 4


@pytest.fixture(scope="module")
def plan(source, tokenizer):
    inputs = plan_inputs(source, tokenizer, V1, patches=P, row_length=T, pictures_per_row=M, seed=3)
    return build_plan(source, tokenizer, V1, inputs)


@pytest.fixture
def load(plan, source, tokenizer):
    def load(start_step=0, steps=1, **changes):
        arguments = {
            "plan": plan,
            "source": source,
            "tokenizer": tokenizer,
            "template": V1,
            "images": ImageSpec(SIZE, "pad"),
            "batch_size": B,
            **changes,
        }
        return list(make_loader(start_step=start_step, steps=steps, **arguments))

    return load


def assert_same(a: Batch, b: Batch, rows=slice(None)):
    for field in dataclasses.fields(Batch):
        wanted, found = getattr(a, field.name)[rows], getattr(b, field.name)
        np.testing.assert_array_equal(wanted, found, err_msg=field.name)
        assert wanted.dtype == found.dtype


def steps_of_two_epochs(plan):
    return -(-2 * len(plan) // B)


def test_a_row_is_its_dialogues_one_after_another(load, plan, source, tokenizer):
    for loaded in load(steps=steps_of_two_epochs(plan)):
        batch = loaded.batch
        assert batch.images.shape == (B, M, SIZE, SIZE, 3)
        for b in range(B):
            start, slot = 0, 0
            for number, (i, j, _, _) in enumerate(plan.row(loaded.step * B + b).tolist(), 1):
                record = source[i]
                alone = encode_dialogue(record.dialogues[j].turns, V1, tokenizer, P)
                n = len(alone.tokens)
                here = slice(start, start + n)
                np.testing.assert_array_equal(batch.tokens[b, here], alone.tokens)
                np.testing.assert_array_equal(batch.loss_weights[b, here], alone.loss_weights)
                np.testing.assert_array_equal(batch.positions[b, here], range(n))
                assert (batch.segment_ids[b, here] == number).all()
                shown = batch.vision_index[b, here]
                if not record.images:
                    assert (shown == -1).all()
                else:
                    first = slot * P
                    assert shown[shown >= 0].tolist() == list(range(first, first + P))
                    # The stand-in's pictures are flat greys that say whose they are.
                    assert (batch.images[b, slot] == 10 + i).all()
                    slot += 1
                start += n
            assert not batch.segment_ids[b, start:].any()
            assert not batch.loss_weights[b, start:].any()
            assert (batch.vision_index[b, start:] == -1).all()
            assert not batch.images[b, slot:].any()


def test_an_epoch_is_every_dialogue_once_across_batches(load, plan):
    """Segments counted over one epoch's rows, though batches don't divide it."""
    steps = steps_of_two_epochs(plan)
    rows = np.concatenate([loaded.batch.segment_ids for loaded in load(steps=steps)])
    epoch = len(plan)
    assert epoch % B
    for first in (0, epoch):
        assert rows[first : first + epoch].max(axis=1).sum() == plan.statistics().dialogues


def test_resuming_gives_the_same_batches(load, plan):
    whole = load(steps=steps_of_two_epochs(plan))
    rest = load(start_step=3, steps=len(whole) - 3)
    assert [loaded.step for loaded in rest] == list(range(3, len(whole)))
    for a, b in zip(whole[3:], rest, strict=True):
        assert_same(a.batch, b.batch)


@pytest.mark.parametrize("rows", [(0, 1), (3,), (2, 0)])
def test_a_host_makes_rows_of_the_global_batch(load, rows):
    for a, b in zip(load(steps=3), load(steps=3, local_rows=rows), strict=True):
        assert_same(a.batch, b.batch, list(rows))


def test_threads_and_saved_plans_change_nothing(load, plan, tmp_path):
    kept = plan.save(tmp_path)
    for a, b in zip(load(steps=5), load(steps=5, threads=3, plan=kept), strict=True):
        assert_same(a.batch, b.batch)


def test_a_small_dataset_is_read_once_and_a_large_one_each_time(load, plan, source, monkeypatch):
    read = []

    class Counted(MemorySource):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    counted = Counted(source.records)
    steps = steps_of_two_epochs(plan)
    small = load(steps=steps, source=counted)
    assert sorted(read) == list(range(len(source)))
    read.clear()
    monkeypatch.setattr(pipeline, "KEPT_BYTES", 0)
    large = load(steps=steps, source=counted)
    assert len(read) >= 2 * plan.statistics().dialogues
    for a, b in zip(small, large, strict=True):
        assert_same(a.batch, b.batch)


def test_worker_processes_change_nothing(load, plan, tmp_path):
    kept = plan.save(tmp_path)
    for a, b in zip(load(steps=4), load(steps=4, workers=2, plan=kept), strict=True):
        assert (a.step, a.bad) == (b.step, b.bad)
        assert_same(a.batch, b.batch)


def test_text_alone_needs_no_picture_slots(load, source, tokenizer):
    text = MemorySource(tuple(r for r in source.records if not r.images), fingerprint="text")
    inputs = plan_inputs(text, tokenizer, V1, patches=P, row_length=T, pictures_per_row=0, seed=0)
    plan = build_plan(text, tokenizer, V1, inputs)
    (loaded,) = load(plan=plan, source=text)
    assert loaded.batch.images.shape == (B, 0, SIZE, SIZE, 3)


def test_no_steps(load):
    assert load(steps=0) == []


@pytest.fixture
def broken(source):
    """Record 0's picture is no picture; record 4 can't be read at all."""
    records = list(source.records)
    records[0] = dataclasses.replace(records[0], images=(b"not a picture",))
    return MemorySource(tuple(records), frozenset({4}))


def test_a_failed_record_leaves_its_place(load, plan, source, broken):
    epoch = -(-len(plan) // B)
    failed = set()
    for whole, loaded in zip(
        load(steps=epoch), load(steps=epoch, source=broken, max_bad=2), strict=True
    ):
        failed.update(loaded.bad)
        assert len(loaded.bad) == len(loaded.reasons)
        expected = {f: getattr(whole.batch, f).copy() for f in ("tokens", "loss_weights")}
        vision = whole.batch.vision_index.copy()
        images = whole.batch.images.copy()
        for b in range(B):
            slot = 0
            for number, (i, _, _, m) in enumerate(plan.row(loaded.step * B + b).tolist(), 1):
                if i in (0, 4):
                    here = whole.batch.segment_ids[b] == number
                    for values in expected.values():
                        values[b, here] = 0
                    vision[b, here] = -1
                    images[b, slot : slot + m] = 0
                slot += m
        wanted = dataclasses.replace(whole.batch, **expected, vision_index=vision, images=images)
        assert_same(wanted, loaded.batch)
    assert failed == {"0.png", "record 4"}


def test_too_many_failed_records_stop_the_run(load, plan, broken):
    epoch = -(-len(plan) // B)
    load(steps=epoch, source=broken, max_bad=2)
    with pytest.raises(UserError, match=r"2 bad records, more than the 1 allowed; the last is"):
        load(steps=epoch, source=broken, max_bad=1)


def test_more_markers_than_pictures_is_a_bad_record(load, source, tokenizer):
    record = source.records[0]
    turn = dataclasses.replace(record.dialogues[0].turns[0], text="<image><image>two?")
    dialogue = dataclasses.replace(
        record.dialogues[0], turns=(turn, *record.dialogues[0].turns[1:])
    )
    two = MemorySource((dataclasses.replace(record, dialogues=(dialogue,)),), fingerprint="two")
    inputs = plan_inputs(two, tokenizer, V1, patches=P, row_length=T, pictures_per_row=M, seed=0)
    plan = build_plan(two, tokenizer, V1, inputs)
    (loaded,) = load(plan=plan, source=two, max_bad=1)
    assert set(loaded.bad) == {"0.png"}
    assert "shows 2 pictures, but its record holds 1" in loaded.reasons[0]


def test_a_dataset_changed_under_its_fingerprint(load, source):
    changed = tuple(dataclasses.replace(r, dialogues=r.dialogues[::-1]) for r in source.records)
    with pytest.raises(UserError, match=r"but the plan says .* under its old fingerprint"):
        load(steps=5, source=MemorySource(changed))


def test_arguments_that_dont_fit(load, source):
    with pytest.raises(UserError, match="plan was made for dataset memory-1"):
        load(source=dataclasses.replace(source, fingerprint="memory-2"))
    with pytest.raises(UserError, match="plan was made for template v1"):
        load(template=PLAIN)
    with pytest.raises(UserError, match=r"local_rows is \[4\].* 0\.\.3"):
        load(local_rows=[4])
    with pytest.raises(UserError, match="batch size is 0"):
        load(batch_size=0)
    with pytest.raises(UserError, match="must not be negative"):
        load(start_step=-1)
