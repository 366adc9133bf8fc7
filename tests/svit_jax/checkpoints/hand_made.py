"""Checkpoints made by hand, by the formats' own descriptions: neither torch nor our writers."""

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from svit_jax.checkpoints.lazy_array import BFLOAT16

CODES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    BFLOAT16: "BF16",
    np.dtype(np.int64): "I64",
}
STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    BFLOAT16: "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}
Arrays = Mapping[str, np.ndarray]


def safetensors_bytes(arrays: Arrays, changes: Mapping[str, dict] | None = None) -> bytes:
    """A safetensors file; `changes` are lies about single tensors."""
    header, data = {}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        } | (changes or {}).get(name, {})
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class _Named:
    """Pickles as a global of that name, which need not exist here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _Named, *arguments):
        self.function, self.arguments = function, arguments


class _Storage:
    def __init__(self, *identity):
        self.identity = identity


class _Pickler(pickle._Pickler):
    """Python's own pickler, told to write globals that are not installed."""

    def persistent_id(self, value):
        return value.identity if isinstance(value, _Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, _Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def torch_call(module: str, name: str, *arguments) -> _Call:
    return _Call(_Named(module, name), *arguments)


def torch_tensor(key: str, array: np.ndarray, **changes) -> _Call:
    """The pickle of one tensor over storage `key`; `changes` are lies about it."""
    shape = changes.get("shape", array.shape)
    stride = [int(np.prod(array.shape[n + 1 :])) for n in range(array.ndim)]
    kind = _Named("torch", STORAGES[array.dtype])
    storage = _Storage("storage", kind, key, "cpu", changes.get("count", array.size))
    return torch_call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage,
        changes.get("offset", 0),
        tuple(shape),
        tuple(changes.get("stride", stride)),
        False,
        torch_call("collections", "OrderedDict"),
    )


def write_torch(
    path: Path,
    arrays: Arrays,
    value=None,
    compression: int = zipfile.ZIP_STORED,
    byte_order: bytes = b"little",
    left_out: tuple[str, ...] = (),
) -> Path:
    """A torch.save file of these arrays; `value` is pickled in place of their dictionary."""
    keys = {name: str(number) for number, name in enumerate(arrays)}
    if value is None:
        value = {name: torch_tensor(keys[name], array) for name, array in arrays.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        with archive.open("archive/data.pkl", "w") as file:
            _Pickler(file, protocol=2).dump(value)
        archive.writestr("archive/byteorder", byte_order)
        for name, array in arrays.items():
            if name not in left_out:
                archive.writestr(f"archive/data/{keys[name]}", array.tobytes())
    return path


def llama_arrays(rng: np.random.Generator, dtype=np.float32, rows: int = 40) -> dict:
    """A Vicuna of two layers: D 12, 3 heads of 4, one for keys, F 10."""

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    found = {"model.embed_tokens.weight": draw(rows, 12), "model.norm.weight": draw(12)}
    for layer in range(2):
        start = f"model.layers.{layer}"
        found |= {
            f"{start}.self_attn.q_proj.weight": draw(12, 12),
            f"{start}.self_attn.k_proj.weight": draw(4, 12),
            f"{start}.self_attn.v_proj.weight": draw(4, 12),
            f"{start}.self_attn.o_proj.weight": draw(12, 12),
            f"{start}.mlp.gate_proj.weight": draw(10, 12),
            f"{start}.mlp.up_proj.weight": draw(10, 12),
            f"{start}.mlp.down_proj.weight": draw(12, 10),
            f"{start}.input_layernorm.weight": draw(12),
            f"{start}.post_attention_layernorm.weight": draw(12),
        }
    return found | {"lm_head.weight": draw(rows, 12)}


def clip_arrays(rng: np.random.Generator, dtype=np.float32) -> dict:
    """A CLIP tower of three layers: 8 wide, 2 heads, patches of 4 in pictures of 8."""

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    found = {
        "embeddings.class_embedding": draw(8),
        "embeddings.patch_embedding.weight": draw(8, 3, 4, 4),
        "embeddings.position_embedding.weight": draw(5, 8),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(3):
        start = f"encoder.layers.{layer}"
        norms += [f"{start}.layer_norm1", f"{start}.layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{start}.self_attn.{name}.weight"] = draw(8, 8)
            found[f"{start}.self_attn.{name}.bias"] = draw(8)
        found |= {
            f"{start}.mlp.fc1.weight": draw(6, 8),
            f"{start}.mlp.fc1.bias": draw(6),
            f"{start}.mlp.fc2.weight": draw(8, 6),
            f"{start}.mlp.fc2.bias": draw(8),
        }
    for name in norms:
        found |= {f"{name}.weight": draw(8), f"{name}.bias": draw(8)}
    return found


def projector_arrays(rng: np.random.Generator, dtype=np.float32) -> dict:
    return {
        "model.mm_projector.0.weight": rng.standard_normal((12, 8)).astype(dtype),
        "model.mm_projector.0.bias": rng.standard_normal(12).astype(dtype),
        "model.mm_projector.2.weight": rng.standard_normal((12, 12)).astype(dtype),
        "model.mm_projector.2.bias": rng.standard_normal(12).astype(dtype),
    }


LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
}
CLIP_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
LLAVA_CONFIG = LLAMA_CONFIG | {
    "model_type": "llava_llama",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_vision_select_layer": -2,
    "image_aspect_ratio": "pad",
}


def write_folder(folder: Path, arrays: Arrays, config: dict, tokenizer: Path | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(arrays))
    if tokenizer:
        (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    return folder
