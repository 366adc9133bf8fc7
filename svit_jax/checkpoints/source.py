"""The tensors of a checkpoint folder or file, whatever they are kept in, unread."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, require_file
from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.checkpoints.safetensors import read_safetensors
from svit_jax.checkpoints.torch_files import read_torch

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def read_tensor_file(path: PathLike) -> dict[str, LazyArray]:
    """The tensors of one `.safetensors`, `.bin` or `.pt` file."""
    file = Path(require_file(path, "tensor file"))
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    if file.suffix in (".bin", ".pt", ".pth"):
        return read_torch(file)
    raise UserError(f"tensor file {file} is neither .safetensors nor .bin; give one of those.")


def find_tensors(folder: PathLike, names: Sequence[str] = MODEL_FILES) -> dict[str, LazyArray]:
    """The tensors of a folder: of the first of `names` that stands there, whole or in shards."""
    root = Path(folder)
    for name in names:
        if (root / f"{name}.index.json").exists():
            return _read_shards(root / f"{name}.index.json")
        if (root / name).exists():
            return read_tensor_file(root / name)
    raise UserError(
        f"{root} holds no weights (none of {', '.join(names)}, nor an index of shards); give the "
        "folder of a checkpoint."
    )


def _read_shards(index: Path) -> dict[str, LazyArray]:
    content = read_json(index, "index of shards")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, Mapping) or not places:
        raise UserError(f"index of shards {index} has no weight_map; fetch it again.")
    found: dict[str, LazyArray] = {}
    for shard in sorted(set(map(str, places.values()))):
        if Path(shard).name != shard:
            raise UserError(
                f"index of shards {index} names '{shard}', which is no file beside it; fetch it "
                "again."
            )
        tensors = read_tensor_file(index.parent / shard)
        announced = {name for name, place in places.items() if place == shard}
        if announced != tensors.keys():
            odd = sorted(announced ^ tensors.keys())
            raise UserError(
                f"index of shards {index} and {shard} differ in {', '.join(odd[:5])}"
                f"{f' and {len(odd) - 5} more' if len(odd) > 5 else ''}; fetch both again."
            )
        found |= tensors
    return found
