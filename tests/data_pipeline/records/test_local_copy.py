"""A dataset in a bucket, read from its local copy."""

import shutil

import pytest
from fake_bucket import use_fake_bucket

from data_pipeline.common.errors import UserError
from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.records.local_copy import local_copy
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.toy_world.generate import generate_world


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    generate_world(root / "world", train_scenes=4, held_out_scenes=1, novel_scenes=0)
    split = root / "world" / "train"
    convert_vqa(
        split / "vqa" / "questions.json", split / "vqa" / "annotations.json", root / "rows.json"
    )
    write_dataset([root / "rows.json"], split / "images", root / "data", "tiny")
    return root / "data"


def test_a_copy_has_the_same_records_and_is_made_once(dataset, tmp_path, monkeypatch):
    use_fake_bucket(monkeypatch, tmp_path / "objects")
    shutil.copytree(dataset, tmp_path / "objects" / "b" / "data")
    with pytest.raises(UserError, match=r"gs://b/data lies in a bucket; .*--data\.cache"):
        local_copy("gs://b/data", "train", "")
    copy = local_copy("gs://b/data", "train", tmp_path / "cache")
    true, found = open_records(dataset), open_records(copy)
    assert found.fingerprint == true.fingerprint and len(found) == len(true) > 0
    assert all(found[n] == true[n] for n in range(len(true)))

    shard = next(path for path in (tmp_path / "cache").rglob("*") if "array_record" in path.name)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    untouched = shard.parent / "dataset_info.json"
    before = untouched.stat().st_mtime_ns
    assert local_copy("gs://b/data", "train", tmp_path / "cache") == copy
    assert shard.read_bytes() == whole and untouched.stat().st_mtime_ns == before


def test_a_local_dataset_is_read_where_it_is(dataset, tmp_path):
    assert local_copy(dataset, "train", tmp_path / "cache") == str(dataset)
    assert not (tmp_path / "cache").exists()
