"""A newest checkpoint that can't be read is named, and the one before is used."""

import shutil

import pytest

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.manager import newest_checkpoint
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics


def largest_file(checkpoint, item):
    return max((checkpoint / item).rglob("*"), key=lambda p: p.stat().st_size * p.is_file())


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "values": lambda checkpoint: cut(largest_file(checkpoint, "parameters/ocdbt.process_0")),
    "moments": lambda checkpoint: cut(largest_file(checkpoint, "optimizer/ocdbt.process_0")),
    "manifest": lambda checkpoint: cut(checkpoint / "parameters" / "manifest.ocdbt"),
}


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def interrupted(trained, tmp_path_factory):
    """A run that died in step 5, with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("interrupted")

    def stop(step, state):
        raise StopError

    with pytest.raises(StopError):
        train(trained.config, workdir, hooks=((5, stop),))
    assert {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()} == {"2", "4"}
    return workdir


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used(trained, interrupted, tmp_path, capsys, damage):
    workdir = tmp_path / "run"
    shutil.copytree(interrupted, workdir)
    DAMAGES[damage](workdir / "checkpoints" / "4")
    started = []
    result = train(trained.config, workdir, hooks=((1, lambda step, state: started.append(step)),))
    assert started[0] == 2 and result.step == 6
    notes = capsys.readouterr().err
    assert f"checkpoint {workdir / 'checkpoints' / '4'} is damaged" in notes
    assert f"going on from checkpoint {workdir / 'checkpoints' / '2'}" in notes
    assert (workdir / "damaged" / "4").is_dir()
    # Step 4 was saved anew.
    kept = {p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {"4", "6"}
    assert read_metrics(workdir) == read_metrics(trained.workdir)


def test_none_is_moved_where_none_can_be_read(trained, interrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(interrupted, workdir)
    for step in ("2", "4"):
        DAMAGES["values"](workdir / "checkpoints" / step)
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 4\] .* can be read"):
        train(trained.config, workdir)
    assert not (workdir / "damaged").exists()
    assert newest_checkpoint(workdir).name == "4"
