"""The plan's order is a bijection, its file survives, and it refuses other inputs."""

import dataclasses
import json
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_source import MemoryRecord, MemorySource, make_source

from data_pipeline.common.dialogue import Dialogue, Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading import measure
from data_pipeline.loading.order import mixed, permuted
from data_pipeline.loading.plan import Plan, build_plan, plan_inputs
from data_pipeline.text.encode import Measured, encode_dialogue
from data_pipeline.text.templates import PLAIN, V1

P, T, M = 4, 160, 2


@pytest.fixture
def inputs(source, tokenizer):
    return plan_inputs(source, tokenizer, V1, patches=P, row_length=T, pictures_per_row=M, seed=3)


@pytest.fixture
def plan(source, tokenizer, inputs):
    return build_plan(source, tokenizer, V1, inputs)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 120),
    epoch=st.integers(0, 10**6),
    seed=st.integers(0, 2**40),
    stream=st.integers(0, 9),
)
def test_every_epoch_is_a_permutation(count, epoch, seed, stream):
    order = [permuted(epoch * count + i, count, seed, stream) for i in range(count)]
    assert sorted(order) == list(range(count))


def test_epochs_seeds_and_streams_differ():
    orders = {
        tuple(permuted(epoch * 50 + i, 50, seed, stream) for i in range(50))
        for epoch in range(4)
        for seed in range(4)
        for stream in range(3)
    }
    assert len(orders) == 48


def test_the_order_is_pinned():
    """A run resumes under a newer Grain only while its shuffle gives these."""
    assert [permuted(i, 10, seed=0) for i in range(10)] == [5, 8, 9, 7, 4, 2, 1, 0, 3, 6]


@settings(max_examples=40, deadline=None)
@given(
    shares=st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple),
    period=st.integers(0, 10**6),
    seed=st.integers(0, 99),
)
def test_a_mixture_has_exact_shares_and_counts_each_part_on(shares, period, seed):
    """Each period holds share k of part k, numbered on from what came before."""
    first = period * sum(shares)
    found = [mixed(first + i, shares, seed) for i in range(2 * sum(shares))]
    for half in (found[: sum(shares)], found[sum(shares) :]):
        assert Counter(part for part, _ in half) == dict(enumerate(shares))
    for part, share in enumerate(shares):
        numbers = sorted(n for k, n in found if k == part)
        assert numbers == list(range(period * share, (period + 2) * share))


def test_rows_hold_every_dialogue_once_with_its_size(plan, source, tokenizer):
    seen = {}
    for index in range(len(plan)):
        row = plan.row(index)
        assert row[:, 2].sum() <= T and row[:, 3].sum() <= M
        for record, dialogue, tokens, pictures in row.tolist():
            encoded = encode_dialogue(source[record].dialogues[dialogue].turns, V1, tokenizer, P, T)
            assert (tokens, pictures) == (len(encoded.tokens), encoded.pictures)
            seen[record, dialogue] = seen.get((record, dialogue), 0) + 1
    assert seen == {
        (i, j): 1 for i, r in enumerate(source.records) for j in range(len(r.dialogues))
    }


def test_statistics(source, tokenizer, inputs):
    short = dataclasses.replace(inputs, row_length=60)
    plan = build_plan(source, tokenizer, V1, short)
    sizes = [
        encode_dialogue(d.turns, V1, tokenizer, P) for r in source.records for d in r.dialogues
    ]
    found = plan.statistics()
    assert found.dialogues == len(sizes)
    assert found.counts["truncated"] == sum(len(e.tokens) > 60 for e in sizes) > 0
    assert found.fill == pytest.approx(
        sum(min(len(e.tokens), 60) for e in sizes) / (60 * found.rows)
    )
    assert found.picture_occupancy == pytest.approx(
        sum(e.pictures for e in sizes) / (M * found.rows)
    )
    assert found.dialogues_per_row == pytest.approx(len(sizes) / found.rows)


def test_oddities_are_counted_said_and_kept(tokenizer, tmp_path, capfd):
    def dialogue(name, *texts):
        roles = ("human", "gpt") * len(texts)
        return Dialogue(name, tuple(map(Turn, roles, texts)))

    picture, *_ = make_source(1).records
    marker = "<image>\n"
    pictured = (
        dialogue("plain", f"{marker}What?", "A cat."),
        dialogue("long", f"{marker}What?", "A cat. " * T),
        dialogue("late", marker + "What? " * T, "A cat."),
        dialogue("empty", f"{marker}What?", ""),
        dialogue("role", f"{marker}What?", "Say ASSISTANT: yes."),
    )
    text_only = (
        dialogue("marker", "What is <image>?", "A marker."),
        dialogue("special", "What is </s>?", "An end."),
        dialogue("torn", "What?", "A cat.", "Where?"),
        dialogue("mute", "", "Hello."),
    )
    source = MemorySource(
        (
            dataclasses.replace(picture, dialogues=pictured),
            *(
                dataclasses.replace(picture, image_id="", images=(), dialogues=(d,))
                for d in text_only
            ),
        )
    )
    inputs = plan_inputs(source, tokenizer, V1, patches=P, row_length=T, pictures_per_row=M, seed=0)
    counts = build_plan(source, tokenizer, V1, inputs).save(tmp_path).statistics().counts
    assert counts == {
        "text_only": 4,
        "empty_answer": 1,
        "empty_question": 1,
        "unanswered_question": 1,
        "role_in_text": 1,
        "special_token_in_text": 1,
        "marker_in_text": 1,
        "several_pictures_in_a_turn": 0,
        "truncated": 2,
        "nothing_to_learn": 2,
    }
    assert json.loads((tmp_path / "plan.json").read_text())["counts"] == counts
    said = capfd.readouterr().err
    assert "9 dialogues in" in said and "2 cut off at" in said
    assert "several <image>" not in said


def test_padded_has_one_dialogue_a_row(source, tokenizer, inputs):
    plan = build_plan(source, tokenizer, V1, dataclasses.replace(inputs, kind="padded"))
    assert plan.rows.shape[1] == 1
    assert plan.statistics().dialogues_per_row == 1


def test_saved_and_loaded(plan, inputs, tmp_path):
    kept = plan.save(tmp_path)
    for other in (kept, Plan.load(tmp_path), pickle.loads(pickle.dumps(kept))):
        assert isinstance(other.rows, np.memmap)
        np.testing.assert_array_equal(other.rows, plan.rows)
        assert (other.inputs, other.counts) == (inputs, plan.counts)
    assert len(pickle.dumps(kept)) < 2000
    in_memory = pickle.loads(pickle.dumps(plan))
    np.testing.assert_array_equal(in_memory.rows, plan.rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_length": 200}, "row_length 160, now 200"),
        ({"seed": 4}, "seed 3, now 4"),
        ({"dataset": "other"}, "dataset 'memory-1', now 'other'"),
        ({"kind": "padded"}, "kind 'packed', now 'padded'"),
    ],
)
def test_a_plan_of_other_inputs_says_which(plan, inputs, tmp_path, change, message):
    plan.save(tmp_path)
    with pytest.raises(UserError, match=message):
        Plan.load(tmp_path, dataclasses.replace(inputs, **change))


def test_each_input_changes_the_identity(inputs):
    changes = {
        "dataset": "x",
        "tokenizer": "x",
        "template": "x",
        "patches": 9,
        "row_length": 9,
        "pictures_per_row": 9,
        "seed": 9,
        "kind": "padded",
        "dialogue_length": 9,
        "block_rows": 9,
        "reference_devices": 9,
        "parts": ((23, 1),),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(inputs)}
    found = {dataclasses.replace(inputs, **{k: v}).identity for k, v in changes.items()}
    assert len(found | {inputs.identity}) == len(changes) + 1


def test_damaged_files_are_named(plan, tmp_path):
    with pytest.raises(UserError, match=r"no file .*plan\.json"):
        Plan.load(tmp_path)
    kept = plan.save(tmp_path)
    with open(kept.path, "wb") as file:
        file.write(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"rows .* can't be read"):
        Plan.load(tmp_path)
    meta = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**meta, "identity": "0"}))
    with pytest.raises(UserError, match="damaged or of another version"):
        Plan.load(tmp_path)


def test_impossible_inputs(source, tokenizer, inputs):
    with pytest.raises(UserError, match="row_length is 0"):
        dataclasses.replace(inputs, row_length=0)
    with pytest.raises(UserError, match="0 picture slots; raise pictures_per_row"):
        build_plan(source, tokenizer, V1, dataclasses.replace(inputs, pictures_per_row=0))
    with pytest.raises(UserError, match="plan was made for template v1"):
        build_plan(source, tokenizer, PLAIN, inputs)


def test_a_dialogue_that_cant_be_written_is_quarantined(tokenizer, tmp_path):
    good = make_source(2).records
    torn = dataclasses.replace(
        good[0], dialogues=(Dialogue("torn", (Turn("human", "a"), Turn("human", "b"))),)
    )
    source = MemorySource((*good, torn))
    inputs = plan_inputs(source, tokenizer, V1, patches=P, row_length=T, pictures_per_row=M, seed=0)
    with pytest.raises(BadRecordError, match="dialogue torn: turns do not alternate"):
        build_plan(source, tokenizer, V1, inputs)
    quarantine = Quarantine(tmp_path / "q.jsonl")
    plan = build_plan(source, tokenizer, V1, inputs, quarantine)
    assert quarantine.counts() == {"turns do not alternate": 1}
    assert 2 not in plan.rows[..., 0]


def test_texts_do_not_stay_in_memory(tokenizer, inputs, monkeypatch):
    """Entries that are read anew on every pass are let go of one by one."""
    monkeypatch.setattr(measure, "measure_dialogue", lambda *_: Measured(9, 0, 5))

    class Streamed(MemorySource):
        @property
        def entries(self):
            for number in range(2000):
                turns = Turn("human", f"{number} " * 1000), Turn("gpt", "Yes.")
                yield MemoryRecord("", (), (Dialogue(str(number), turns),))

        def __len__(self):
            return 2000

    tracemalloc.start()
    try:
        plan = build_plan(Streamed(()), tokenizer, V1, inputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.statistics().dialogues == 2000
    assert peak < 2e6  # of 9 MB of text
