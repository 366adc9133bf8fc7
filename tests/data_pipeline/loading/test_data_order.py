"""The order of batches is a function of seed and step alone: packed, padded, mixed; any hosts."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from llava_sampler import reference_order
from memory_source import MemorySource

from data_pipeline.common.errors import UserError
from data_pipeline.loading import order
from data_pipeline.loading.batch import Batch
from data_pipeline.loading.grouping import bucket_lengths
from data_pipeline.loading.mixture import Mixture
from data_pipeline.loading.pipeline import ImageSpec, make_loader
from data_pipeline.loading.plan import Plan, build_plan, plan_inputs
from data_pipeline.loading.source import JoinedSource
from data_pipeline.text.encode import encode_dialogue
from data_pipeline.text.templates import V1

P, T, M, SIZE, B = 4, 128, 2, 8, 4
KINDS = ["packed", "padded", "mixture", "padded mixture"]
FIELDS = [field.name for field in dataclasses.fields(Batch)]


@pytest.fixture(scope="module")
def joined(source):
    """The pictured records, and the ones of text alone, as two datasets."""
    pictured, text = (
        tuple(r for r in source.records if bool(r.image_id) == wanted) for wanted in (True, False)
    )
    return JoinedSource(
        (MemorySource(pictured, fingerprint="a"), MemorySource(text, fingerprint="b"))
    )


@pytest.fixture(scope="module")
def plans(source, joined, tokenizer):
    parts = tuple(zip(map(len, joined.sources), (3, 1), strict=True))

    def make(kind):
        data = joined if "mixture" in kind else source
        arguments = {"patches": P, "row_length": T, "pictures_per_row": M, "seed": 3}
        inputs = plan_inputs(
            data,
            tokenizer,
            V1,
            **arguments,
            kind="padded" if "padded" in kind else "packed",
            batch_size=B,
            reference_devices=2,
            parts=parts if "mixture" in kind else (),
        )
        return data, build_plan(data, tokenizer, V1, inputs)

    return {kind: make(kind) for kind in KINDS}


@pytest.fixture
def load(plans, tokenizer):
    def load(kind, start=0, steps=1, rows=None, source=None):
        data, plan = plans[kind]
        images = ImageSpec(SIZE, "pad")
        loader = make_loader(
            plan, source or data, tokenizer, V1, images, B, start, steps, local_rows=rows
        )
        return [loaded.batch for loaded in loader]

    return load


def assert_same(whole: Batch, parts: list[Batch]):
    for name in FIELDS:
        found = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), found, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_hosts_makes_the_same_batches(load, kind):
    """1, 2 and 4 hosts; and 4 that are 2 from step 3 on."""
    whole = load(kind, steps=6)

    def by_hosts(hosts, start, steps):
        rows = np.split(np.arange(B), hosts)
        return zip(*(load(kind, start, steps, tuple(mine.tolist())) for mine in rows), strict=True)

    for hosts in (2, 4):
        for a, parts in zip(whole, by_hosts(hosts, 0, 6), strict=True):
            assert_same(a, list(parts))
    moved = itertools.chain(by_hosts(4, 0, 3), by_hosts(2, 3, 3))
    for a, parts in zip(whole, moved, strict=True):
        assert_same(a, list(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_step_costs_what_the_first_costs(load, plans, kind, monkeypatch):
    """No row, record or place of an earlier step is touched on the way to step 1,000,000."""
    data, plan = plans[kind]
    touched, shuffled = [], []

    class Counted:
        entries, fingerprint = data.entries, data.fingerprint

        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            touched.append(index)
            return data[index]

    true = order.index_shuffle
    monkeypatch.setattr(order, "index_shuffle", lambda **k: shuffled.append(1) or true(**k))
    for step in (0, 1_000_000):
        touched.clear()
        shuffled.clear()
        (batch,) = load(kind, start=step, source=Counted())
        calls = len(shuffled)
        rows = [plan.row(step * B + b) for b in range(B)]
        assert sorted(touched) == sorted(record for row in rows for record in row[:, 0].tolist())
        assert batch.segment_ids.max(1).tolist() == [len(row) for row in rows]
        assert calls <= 4 * B


def test_a_padded_epoch_is_the_references_and_then_its_batches_shuffled(plans, source, tokenizer):
    _, plan = plans["padded"]
    dialogues = [(i, j) for i, r in enumerate(source.records) for j in range(len(r.dialogues))]
    words = [
        sum(len(turn.text.split()) for turn in source[i].dialogues[j].turns)
        * (1 if source[i].image_id else -1)
        for i, j in dialogues
    ]
    permute = np.random.default_rng([3, 0]).permutation
    expected = [dialogues[n] for n in reference_order(words, B // 2, 2, permute)]
    rows = [plan.row(index) for index in range(2 * len(plan))]
    found = [tuple(row[0, :2].tolist()) for row in rows[: len(plan)] if len(row)]
    assert found == expected
    assert len(plan) == -(-len(expected) // B) * B

    def batches(rows):
        return [tuple(map(bytes, rows[n : n + B])) for n in range(0, len(rows), B)]

    first, second = batches(rows[: len(plan)]), batches(rows[len(plan) :])
    assert first != second and sorted(first) == sorted(second)


def test_padded_batches_are_as_long_as_their_longest_row_wants(load, plans, source, tokenizer):
    _, plan = plans["padded"]
    assert bucket_lengths(T) == (48, 64, 96, 128)
    seen = Counter()
    for step, batch in enumerate(load("padded", steps=len(plan) // B)):
        held = []
        for b in range(B):
            for record, place, *_ in plan.row(step * B + b).tolist():
                turns = source[record].dialogues[place].turns
                tokens = encode_dialogue(turns, V1, tokenizer, P, T).tokens
                np.testing.assert_array_equal(batch.tokens[b, : len(tokens)], tokens)
                held.append(len(tokens))
        assert batch.tokens.shape[1] == min(n for n in (48, 64, 96, 128) if n >= max(held))
        seen[batch.tokens.shape[1]] += B
    assert seen == plan.lengths and len(seen) > 1
    empty = sum(not len(plan.row(index)) for index in range(len(plan)))
    assert 0 < empty < B
    assert (batch.segment_ids[-1] == 0).all() and (batch.loss_weights[-1] == 0).all()
    used = plan.statistics().fill * sum(n * rows for n, rows in seen.items())
    assert round(used) == plan.rows[..., 2].sum(where=plan.rows[..., 0] >= 0)


def test_a_mixtures_rows_are_in_exact_shares_and_each_part_has_its_own_epochs(plans, joined):
    _, plan = plans["mixture"]
    first_of_text = len(joined.sources[0])
    parts = [[], []]
    periods = plan.part_rows[0]
    for index in range(4 * periods):
        row = plan.row(index)
        (part,) = {int(record >= first_of_text) for record in row[:, 0]}
        parts[part].append(bytes(row))
        if index % 4 == 3:
            assert (len(parts[0]), len(parts[1])) == (3 * (index + 1) // 4, (index + 1) // 4)
    assert set(Counter(parts[0]).values()) == {3} and len(set(parts[0])) == plan.part_rows[0]
    count = plan.part_rows[1]
    epochs = [parts[1][n : n + count] for n in range(0, len(parts[1]) - count + 1, count)]
    assert len(epochs) > 1 and all(len(set(epoch)) == count for epoch in epochs)


def test_datasets_without_weights_share_rows(joined, tokenizer):
    """All of each, packed as one dataset: text fills up what pictures leave."""
    arguments = {"patches": P, "row_length": 3 * T, "pictures_per_row": M, "seed": 3}
    plan = build_plan(joined, tokenizer, V1, plan_inputs(joined, tokenizer, V1, **arguments))
    first_of_text = len(joined.sources[0])
    kinds = [set(plan.row(index)[:, 0] >= first_of_text) for index in range(len(plan))]
    assert {True, False} in kinds
    wanted = Counter((i, j) for i, r in enumerate(joined.entries) for j in range(len(r.dialogues)))
    rows = [plan.row(index) for index in range(len(plan))]
    assert Counter(map(tuple, np.concatenate(rows)[:, :2].tolist())) == wanted


def test_a_saved_mixture_is_the_same(plans, tmp_path):
    _, plan = plans["mixture"]
    plan.save(tmp_path / "plan")
    kept = Plan.load(tmp_path / "plan", plan.inputs)
    assert (kept.inputs, kept.part_rows, kept.lengths) == (
        plan.inputs,
        plan.part_rows,
        plan.lengths,
    )
    for index in range(0, 99, 7):
        np.testing.assert_array_equal(kept.row(index), plan.row(index))


def test_joined_records_stand_one_after_another(joined):
    records = [r for source in joined.sources for r in source.records]
    assert [joined[i] for i in range(len(joined))] == list(joined.entries) == records
    for outside in (-1, len(joined)):
        with pytest.raises(IndexError):
            joined[outside]


def test_dialogues_are_cut_where_the_reference_cuts_in_longer_rows(source, tokenizer):
    arguments = {"patches": P, "row_length": T, "pictures_per_row": M, "seed": 0}
    inputs = plan_inputs(source, tokenizer, V1, **arguments, dialogue_length=50)
    plan = build_plan(source, tokenizer, V1, inputs)
    assert plan.rows[..., 2].max() == 50 and plan.statistics().counts["truncated"] > 0
    images = ImageSpec(SIZE, "pad")
    (loaded,) = make_loader(plan, source, tokenizer, V1, images, B, 0, 1)
    assert max(np.bincount(loaded.batch.segment_ids.ravel())[1:]) <= 50 * B


def test_a_padded_plan_has_its_own_batch_size(plans, tokenizer):
    data, plan = plans["padded"]
    with pytest.raises(UserError, match="batch size is 2, but the padded plan is of batches of 4"):
        make_loader(plan, data, tokenizer, V1, ImageSpec(SIZE), 2, 0, 1)


def test_mixtures_as_they_are_written(tmp_path):
    assert Mixture.parse("a") == Mixture(("a",))
    assert Mixture.parse("a,b/c") == Mixture(("a", "b/c"))
    assert Mixture.parse("a=0.7,b=0.3") == Mixture(("a", "b"), (7, 3))
    assert Mixture.parse("a=2,b=1.5,c=0.5") == Mixture(("a", "b", "c"), (4, 3, 1))
    odd = tmp_path / "x=1,y"
    odd.mkdir()
    assert Mixture.parse(str(odd)) == Mixture((str(odd),))
    for text, message in (
        ("a=1,b", "each needs a weight, or none"),
        ("a,,b", "each needs a weight, or none"),
        ("a=1,a=2", "named twice"),
        ("a=0,b=1", "no number above 0"),
        ("a=many,b=1", "no number above 0"),
        ("a=0.33333,b=0.66667", "whole shares of 100000 rows"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture.parse(text)
