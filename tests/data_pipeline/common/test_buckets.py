"""Files in a bucket: whole or absent without renaming, and logs without appending."""

import numpy as np
import pytest
from etils import epath
from fake_bucket import use_fake_bucket

from data_pipeline.common.files import move_folder, open_atomic, read_json, write_json, write_jsonl
from data_pipeline.common.mirror import Mirror
from data_pipeline.loading.measure import COUNTED
from data_pipeline.loading.plan import Plan, PlanInputs


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that stands for gs://."""
    use_fake_bucket(monkeypatch, tmp_path / "objects")
    return tmp_path / "objects"


def test_the_fake_is_strict(bucket):
    path = epath.Path("gs://b/run/file")
    path.write_text("content")
    assert (bucket / "b" / "run" / "file").read_text() == "content"
    for forbidden in (
        lambda: path.rename("gs://b/run/other"),
        lambda: path.replace("gs://b/run/other"),
        lambda: path.open("a"),
    ):
        with pytest.raises(NotImplementedError, match="a bucket can't"):
            forbidden()


def test_a_file_is_whole_or_absent(bucket):
    write_json("gs://b/run/value.json", {"a": "ü"})
    assert read_json("gs://b/run/value.json") == {"a": "ü"}
    with pytest.raises(RuntimeError), open_atomic("gs://b/run/value.json") as file:
        file.write("half")
        raise RuntimeError
    assert read_json("gs://b/run/value.json") == {"a": "ü"}
    assert write_jsonl("gs://b/run/rows.jsonl", [1, 2]) == 2
    assert {path.name for path in (bucket / "b" / "run").iterdir()} == {"value.json", "rows.jsonl"}


def test_a_folder_moves(bucket):
    for name in ("4/x", "4/deep/er/y"):
        epath.Path(f"gs://b/checkpoints/{name}").write_text(name)
    (bucket / "b" / "damaged" / "4").mkdir(parents=True)
    (bucket / "b" / "damaged" / "4" / "of_before").touch()
    move_folder(epath.Path("gs://b/checkpoints/4"), epath.Path("gs://b/damaged/4"))
    assert not (bucket / "b" / "checkpoints" / "4").exists()
    moved = bucket / "b" / "damaged" / "4"
    assert (moved / "x").read_text() == "4/x"
    assert (moved / "deep" / "er" / "y").read_text() == "4/deep/er/y"
    assert not (moved / "of_before").exists()


def test_logs_are_written_here_and_appear_there(bucket):
    mirror = Mirror("gs://b/run", "metrics.jsonl")
    (mirror.local / "tensorboard").mkdir()
    log = (mirror.local / "metrics.jsonl").open("a")
    log.write("1\n")
    log.flush()
    (mirror.local / "tensorboard" / "events").write_bytes(b"e")
    there = bucket / "b" / "run"
    mirror.push(at_most_every=3600.0)
    assert not there.exists()
    mirror.push()
    assert (there / "metrics.jsonl").read_text() == "1\n"
    assert (there / "tensorboard" / "events").read_bytes() == b"e"
    (there / "tensorboard" / "events").unlink()  # unchanged here: not put again
    log.write("2\n")
    log.close()
    mirror.close()
    assert (there / "metrics.jsonl").read_text() == "1\n2\n"
    assert not (there / "tensorboard" / "events").exists()
    assert not mirror.local.exists()

    again = Mirror("gs://b/run", "metrics.jsonl")
    assert (again.local / "metrics.jsonl").read_text() == "1\n2\n"
    again.close()


def test_a_local_folder_is_its_own_mirror(tmp_path):
    mirror = Mirror(tmp_path, "metrics.jsonl")
    assert mirror.local == tmp_path
    mirror.close()
    assert tmp_path.exists()


def test_a_plan(bucket):
    inputs = PlanInputs("d", "t", "v1", 4, 16, 1, 0)
    rows = np.array([[[0, 0, 16, 1]], [[1, 0, 12, 0]]], np.int32)
    plan = Plan(inputs, rows, dict.fromkeys(COUNTED, 0), (len(rows),)).save("gs://b/run/plan")
    np.testing.assert_array_equal(plan.rows, rows)
    np.testing.assert_array_equal(Plan.load("gs://b/run/plan", inputs).rows, rows)
    names = {path.name for path in (bucket / "b" / "run" / "plan").iterdir()}
    assert names == {"plan.json", f"rows-{inputs.identity}.npy"}
