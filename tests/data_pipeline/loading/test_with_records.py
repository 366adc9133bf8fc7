"""The loader over a dataset that data_pipeline.records wrote."""

import json
import pickle

import pytest
from memory_source import make_source

from data_pipeline.common.errors import UserError
from data_pipeline.loading.pipeline import ImageSpec, make_loader
from data_pipeline.loading.plan import build_plan, plan_inputs
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.encode import encode_dialogue
from data_pipeline.text.templates import V1


@pytest.fixture
def records(tmp_path):
    """The stand-in's records, by way of LLaVA's format and ArrayRecord shards."""
    rows = []
    for record in make_source(6).records:
        for dialogue in record.dialogues:
            turns = [{"from": turn.role, "value": turn.text} for turn in dialogue.turns]
            row = {"id": dialogue.id, "conversations": turns}
            if record.images:
                (tmp_path / record.image_id).write_bytes(record.images[0])
                row["image"] = record.image_id
            rows.append(row)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    write_dataset([tmp_path / "rows.json"], tmp_path, tmp_path / "dataset", "memory")
    return open_records(tmp_path / "dataset", "train")


def test_written_records_become_rows(records, tokenizer):
    inputs = plan_inputs(
        records, tokenizer, V1, patches=4, row_length=160, pictures_per_row=2, seed=0
    )
    plan = build_plan(records, tokenizer, V1, inputs)
    expected = [
        encode_dialogue(d.turns, V1, tokenizer, 4)
        for r in make_source(6).records
        for d in r.dialogues
    ]
    assert plan.statistics().dialogues == len(expected)
    found = []
    for loaded in make_loader(
        plan, pickle.loads(pickle.dumps(records)), tokenizer, V1, ImageSpec(8), 1, 0, len(plan)
    ):
        assert not loaded.bad
        batch = loaded.batch
        for segment in range(1, batch.segment_ids.max() + 1):
            found.append(tuple(batch.tokens[batch.segment_ids == segment].tolist()))
    assert sorted(found) == sorted(tuple(e.tokens.tolist()) for e in expected)


def test_another_dataset_is_refused(records, tokenizer, source):
    inputs = plan_inputs(
        source, tokenizer, V1, patches=4, row_length=160, pictures_per_row=2, seed=0
    )
    plan = build_plan(source, tokenizer, V1, inputs)
    with pytest.raises(UserError, match="made for dataset memory-1"):
        make_loader(plan, records, tokenizer, V1, ImageSpec(8), 1, 0, 1)
