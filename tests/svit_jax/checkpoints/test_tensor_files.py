"""Tensor files made by hand: read as they are, refused where they lie, never executed."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hand_made import safetensors_bytes, torch_call, torch_tensor, write_torch

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.lazy_array import BFLOAT16, held
from svit_jax.checkpoints.safetensors import ShardedWriter, read_safetensors, write_safetensors
from svit_jax.checkpoints.source import find_tensors, read_tensor_file
from svit_jax.checkpoints.torch_files import read_torch

RNG = np.random.default_rng(0)
ARRAYS = {
    "a.weight": RNG.standard_normal((3, 5)).astype(np.float32),
    "b": RNG.standard_normal(7).astype(BFLOAT16),
    "c": RNG.standard_normal((2, 2, 2)).astype(np.float16),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def assert_same(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        read = found[name].read()
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        assert read.tobytes() == array.tobytes()


def test_safetensors_as_described(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(ARRAYS))
    assert_same(read_safetensors(tmp_path / "x.safetensors"), ARRAYS)


def test_safetensors_written_are_the_format(tmp_path):
    """The bytes, by the format's description."""
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {name: held(array, name) for name, array in ARRAYS.items()})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"} and (8 + length) % 8 == 0
    for name, array in ARRAYS.items():
        begin, end = header[name]["data_offsets"]
        assert content[8 + length :][begin:end] == array.tobytes()
        assert header[name]["shape"] == list(array.shape)


def test_shards_and_their_index(tmp_path):
    described = {name: held(array, name) for name, array in ARRAYS.items()}
    writer = ShardedWriter(tmp_path, described, shard_bytes=70)
    for name in reversed(ARRAYS):
        writer.write(name, ARRAYS[name])
    writer.close()
    assert (tmp_path / "model-00002-of-00002.safetensors").exists()
    assert_same(find_tensors(tmp_path), ARRAYS)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(safetensors_bytes({}))
    with pytest.raises(UserError, match="differ in b, c, empty, scalar; fetch both again"):
        find_tensors(tmp_path)
    index = {"weight_map": {"a": "../a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="no file beside it"):
        find_tensors(tmp_path)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"a.weight": {"shape": [3, 6]}}, "cannot fill 60 bytes"),
        ({"a.weight": {"shape": [-3, -5]}}, "no natural numbers"),
        ({"a.weight": {"shape": [True, 15]}}, "no natural numbers"),
        ({"a.weight": {"dtype": "F31"}}, "entry for a.weight"),
        ({"a.weight": {"data_offsets": [0]}}, "entry for a.weight"),
        ({"b": {"data_offsets": [56, 70]}}, "b overlaps a.weight"),
        ({"b": {"data_offsets": [64, 78]}}, "b leaves a hole after a.weight"),
    ],
)
def test_safetensors_that_lie(change, told, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(ARRAYS, change))
    with pytest.raises(UserError, match=f"damaged or cut off: .*{told}"):
        read_safetensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "header claims"),
        (b"1234", "header claims"),
        (struct.pack("<Q", 2**60) + b"{}", "header claims"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 2) + b"{x", "not JSON"),
        (struct.pack("<Q", 13) + b'{"a":1,"a":2}', "stands there twice"),
        (safetensors_bytes(ARRAYS)[:-1], "tensors end at byte"),
        (safetensors_bytes(ARRAYS) + b"x", "tensors end at byte"),
    ],
)
def test_safetensors_that_are_damaged(content, told, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_safetensors(tmp_path / "x.safetensors")


def test_torch_as_described(tmp_path):
    assert_same(read_torch(write_torch(tmp_path / "x.bin", ARRAYS)), ARRAYS)


def test_torch_views(tmp_path):
    """Transposed, and a part of a shared storage."""
    base = ARRAYS["a.weight"]
    value = {
        "turned": torch_tensor("0", base, shape=(5, 3), stride=(1, 5)),
        "part": torch_tensor("0", base, shape=(2, 2), stride=(5, 1), offset=6),
    }
    found = read_torch(write_torch(tmp_path / "x.bin", {"base": base}, value))
    assert_same(found, {"turned": base.T.copy(), "part": base[1:3, 1:3].copy()})


def test_torch_parameters_and_ordered_dictionaries(tmp_path):
    base = ARRAYS["a.weight"]
    tensor = torch_tensor("0", base)
    parameter = torch_call("torch._utils", "_rebuild_parameter", tensor, True, {})
    value = torch_call("collections", "OrderedDict", [["w", parameter]])
    assert_same(read_torch(write_torch(tmp_path / "x.bin", {"w": base}, value)), {"w": base})


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("place", ["whole", "beside tensors"])
def test_code_is_refused_and_not_run(place, tmp_path):
    witness = tmp_path / "executed"
    evil = Malicious(witness)
    value = evil if place == "whole" else {"x": evil}
    path = write_torch(tmp_path / "x.bin", {}, value)
    with pytest.raises(UserError, match=r"asks for posix\.mkdir; nothing of it was run"):
        read_torch(path)
    assert not witness.exists()
    with zipfile.ZipFile(path) as archive:  # the file is what it is meant to be
        pickle.loads(archive.read("archive/data.pkl"))
    assert witness.exists()


@pytest.mark.parametrize(
    "module, name, arguments",
    [
        ("builtins", "eval", ("1",)),
        ("builtins", "getattr", ("", "join")),
        ("torch", "load", ("x",)),
        ("torch.storage", "_load_from_bytes", (b"x",)),
        ("collections", "namedtuple", ("a", "b")),
        ("collections.OrderedDict", "fromkeys", ("ab",)),
    ],
)
def test_any_other_name_is_refused(module, name, arguments, tmp_path):
    value = torch_call(module, name, *arguments)
    path = write_torch(tmp_path / "x.bin", {}, {"x": value})
    with pytest.raises(UserError, match="not plain tensors: it asks for"):
        read_torch(path)


BASE = ARRAYS["a.weight"]


@pytest.mark.parametrize(
    "value, told",
    [
        ({"w": torch_tensor("0", BASE, count=99)}, "99 values of float32 were announced"),
        ({"w": torch_tensor("0", BASE, shape=(3, 6))}, "reaches past its bytes"),
        ({"w": torch_tensor("0", BASE, offset=1)}, "reaches past its bytes"),
        ({"w": torch_tensor("0", BASE, stride=(0, 1))}, "repeats its elements"),
        ({"w": torch_tensor("0", BASE, stride=(1, 1))}, "reaches past its bytes"),
        ({"w": torch_tensor("0", BASE, stride=(-5, 1))}, "not described as one"),
        ({"w": torch_tensor("7", BASE)}, "no data/7"),
        ({"w": 3}, "'w' is a int, not a tensor"),
        ([1], "it holds a list"),
    ],
)
def test_torch_files_that_lie(value, told, tmp_path):
    path = write_torch(tmp_path / "x.bin", {"base": BASE}, value)
    with pytest.raises(UserError, match=told):
        read_torch(path)


def test_torch_files_that_are_damaged(tmp_path):
    path = write_torch(tmp_path / "x.bin", ARRAYS)
    content = path.read_bytes()
    for broken in (content[:-30], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"not the zip that torch\.save writes"):
            read_torch(path)
    write_torch(path, ARRAYS, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed or encrypted"):
        read_torch(path)
    write_torch(path, ARRAYS, byte_order=b"big")
    with pytest.raises(UserError, match="not little-endian"):
        read_torch(path)
    write_torch(path, ARRAYS, left_out=("c",))
    with pytest.raises(UserError, match=r"c has no bytes"):
        read_torch(path)


def test_a_byte_order_that_would_unpack_to_gigabytes_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_torch(path, ARRAYS, byte_order=b"l" * 1_000_000, compression=zipfile.ZIP_DEFLATED)
    unpacked = []
    read = zipfile.ZipFile.read

    def watched(archive, entry, *rest):
        unpacked.append(getattr(entry, "filename", entry))
        return read(archive, entry, *rest)

    monkeypatch.setattr(zipfile.ZipFile, "read", watched)
    with pytest.raises(UserError, match="not little-endian"):
        read_torch(path)
    assert unpacked == ["archive/data.pkl"]


def test_folders_and_files_that_hold_none(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        find_tensors(tmp_path)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"neither \.safetensors nor \.bin"):
        read_tensor_file(tmp_path / "x.txt")
    with pytest.raises(UserError, match="there is no file"):
        read_tensor_file(tmp_path / "none.bin")


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(ARRAYS))
    tensors = read_safetensors(path)
    os.truncate(path, 300)
    with pytest.raises(UserError, match="ends while it is read"):
        for tensor in tensors.values():
            tensor.read()
