"""What befalls a folder of checkpoints: files that are cut off or missing, a disk that is full or
read-only, a folder that is gone. Arrays here hold their step's number, so what comes back shows
which step it is of."""

import errno
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.manager import Checkpoints, load_parameters

SHAPE = (64, 48)


def filled(step: int, shape=SHAPE) -> dict[str, jax.Array]:
    return {"block/kernel": jnp.asarray(np.random.default_rng(step).random(shape, "float32"))}


def save(checkpoints: Checkpoints, step: int, shape=SHAPE) -> None:
    checkpoints.save(step, filled(step, shape), filled(step + 100), {"step": step})


def abstract(shape=SHAPE) -> dict[str, jax.ShapeDtypeStruct]:
    return {"block/kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}


def assert_restores(folder, step: int) -> None:
    with Checkpoints(folder) as checkpoints:
        parameters, moments, metadata = checkpoints.restore_newest(abstract(), abstract())
    assert metadata == {"step": step}
    for found, expected in ((parameters, filled(step)), (moments, filled(step + 100))):
        np.testing.assert_array_equal(found["block/kernel"], expected["block/kernel"])


def steps_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def values(item):
    """The file that holds the item's values."""
    return max((item / "d").iterdir(), key=lambda path: path.stat().st_size)


DAMAGES = {
    "values cut off": lambda step: cut(values(step / "parameters")),
    "values missing": lambda step: values(step / "parameters").unlink(),
    "moments cut off": lambda step: cut(values(step / "optimizer")),
    "moments missing": lambda step: shutil.rmtree(step / "optimizer"),
    "manifest cut off": lambda step: cut(step / "parameters" / "manifest.ocdbt"),
    "manifest missing": lambda step: (step / "parameters" / "manifest.ocdbt").unlink(),
    "shapes cut off": lambda step: cut(step / "parameters" / "_METADATA"),
    "shapes missing": lambda step: (step / "parameters" / "_METADATA").unlink(),
    "parameters missing": lambda step: shutil.rmtree(step / "parameters"),
    "step's number cut off": lambda step: cut(step / "metadata" / "metadata"),
    "step's number missing": lambda step: shutil.rmtree(step / "metadata"),
    "empty folder": lambda step: (shutil.rmtree(step), step.mkdir()),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    with Checkpoints(root / "checkpoints") as checkpoints:
        for step in (2, 4):
            save(checkpoints, step)
    return root


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_used(two, tmp_path, capsys, damage):
    shutil.copytree(two, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    DAMAGES[damage](folder / "4")
    assert_restores(folder, 2)
    said = capsys.readouterr().err
    assert f"checkpoint {folder / '4'} is damaged (" in said and "NoneType" not in said
    assert f"going on from checkpoint {folder / '2'}, the one before" in said
    assert steps_in(folder) == {"2"} and steps_in(tmp_path / "run" / "damaged") == {"4"}


def test_a_damaged_one_that_is_asked_for_is_said_to_be_damaged(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    DAMAGES["values cut off"](tmp_path / "run" / "checkpoints" / "4")
    DAMAGES["shapes missing"](tmp_path / "run" / "checkpoints" / "2")
    for step in ("2", "4"):
        with pytest.raises(UserError, match=rf"checkpoint .*{step} is damaged \(.*give another"):
            load_parameters(tmp_path / "run" / "checkpoints" / step, abstract())


@pytest.fixture
def full_disk(monkeypatch):
    """`full_disk(n)`: the next n writes in the background find no room, at their end."""
    left = 0

    def finalize(handler, directory):
        nonlocal left
        if left:
            left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "finalize", finalize)

    def fill(writes: int) -> None:
        nonlocal left
        left = writes

    return fill


def test_where_there_is_room_again_saving_goes_on(tmp_path, capsys, full_disk):
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)
        checkpoints.wait()
        full_disk(1)
        save(checkpoints, 2)
        save(checkpoints, 3)
    said = capsys.readouterr().err
    assert "checkpoint of step 2 could not be written" in said and "Traceback" not in said
    assert "(no space left on device); the newest whole one is of step 1." in said
    assert steps_in(tmp_path / "c") == {"1", "3"}
    assert_restores(tmp_path / "c", 3)


@pytest.mark.parametrize("also_later", [False, True])
def test_a_disk_that_stays_full_ends_in_one_sentence(tmp_path, full_disk, also_later):
    said = r"of step (2|3) could not be written .*one is of step 1"
    with pytest.raises(UserError, match=said), Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)
        checkpoints.wait()
        full_disk(2)
        save(checkpoints, 2)
        if also_later:
            save(checkpoints, 3)
    full_disk(0)
    assert_restores(tmp_path / "c", 1)
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 4)
    assert steps_in(tmp_path / "c") == {"1", "4"}


def test_a_folder_that_was_taken_away_is_made_again(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)
        checkpoints.wait()
        shutil.rmtree(tmp_path / "c")
        save(checkpoints, 2)
    assert_restores(tmp_path / "c", 2)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB; its name is a mount point."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this needs the right to mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full_and_then_read_only(small_disk, capfd):
    large = (1000, 2000)
    folder = small_disk / "c"
    said = r"step 2 .*\(no space left on device\).* of step 1"
    with pytest.raises(UserError, match=said), Checkpoints(folder) as checkpoints:
        save(checkpoints, 1)
        save(checkpoints, 2, large)
    assert_restores(folder, 1)
    with Checkpoints(folder) as checkpoints:
        save(checkpoints, 3)
    assert steps_in(folder) == {"1", "3"}

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = r"step 4 .*\(read-only file system\).* of step 3"
    with pytest.raises(UserError, match=said), Checkpoints(folder) as checkpoints:
        save(checkpoints, 4)
    assert_restores(folder, 3)
    assert "Traceback" not in capfd.readouterr().err
