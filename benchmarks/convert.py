"""Time and memory of `svit convert`, there and back, on random weights of a published size.

    python benchmarks/convert.py --size tiny
    nice -n 10 python benchmarks/convert.py --size 7b --folder /big/disk --out benchmarks/results

Writes a llava-hf checkpoint of random bfloat16 shards, converts it to ours and back, each in a
process of its own, and compares every tensor of the two byte for byte. 7b needs 42 GB of disk.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import machine, record, svit

from data_pipeline.text.tokenizer import train_tokenizer
from svit_jax.checkpoints.architecture import llava_hf_json
from svit_jax.checkpoints.key_tables import LLAVA_HF, RULES
from svit_jax.checkpoints.lazy_array import BFLOAT16, LazyArray
from svit_jax.checkpoints.portable import local_name
from svit_jax.checkpoints.safetensors import ShardedWriter
from svit_jax.checkpoints.source import find_tensors
from svit_jax.config import default_config, model_config
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import SvitConfig, abstract_model

LIMIT_GIB = 6.0
POST_NORM = ("post_layernorm.weight", "post_layernorm.bias")
ROWS = 64  # past the vocabulary, as llava-hf pads it


def random_values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal values of standard deviation 0.02, other ones for each key."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    return (0.02 * rng.standard_normal(shape, np.float32)).astype(BFLOAT16)


def write_source(folder: Path, model: SvitConfig) -> None:
    """A whole llava-hf checkpoint, the tower's last block and the added rows with it."""
    shapes = {path: tuple(x.shape) for path, x in flat_parameters(abstract_model(model)).items()}
    keys = {LLAVA_HF.key("tower", local): (model.vision.embed,) for local in POST_NORM}
    for rule in RULES:
        shape = shapes[rule.path]
        layers: list[int | None] = [None]
        if rule.stacked:
            layers = list(range(model.vision.layers if rule.part == "tower" else shape[0]))
            shape = shape[1:]
        theirs = rule.transform.their_shape(shape)
        if rule.local in ("embed_tokens.weight", "weight") and rule.part in ("decoder", "head"):
            theirs = (theirs[0] + ROWS, *theirs[1:])
        keys |= {LLAVA_HF.key(rule.part, local_name(rule, layer)): theirs for layer in layers}
    described = {
        key: LazyArray(shape, BFLOAT16, key, lambda: np.empty(0))
        for key, shape in sorted(keys.items())
    }
    folder.mkdir(parents=True)
    writer = ShardedWriter(folder, described)
    for key, shape in keys.items():
        writer.write(key, random_values(key, shape))
    writer.close()
    vocabulary = model.decoder.vocab
    config = llava_hf_json(model, vocabulary + ROWS, vocabulary, "bfloat16", {})
    (folder / "config.json").write_text(json.dumps(config))
    train_tokenizer(["a cat on a mat", "What is this?"], folder / "tokenizer.model", 280)


def differing(source: Path, back: Path) -> list[str]:
    """Keys whose bytes are not the same, or that one of the two lacks."""
    first, second = find_tensors(source), find_tensors(back)
    return sorted(first.keys() ^ second.keys()) + [
        key
        for key in sorted(first.keys() & second.keys())
        if first[key].shape != second[key].shape
        or not np.array_equal(first[key].read().view(np.uint8), second[key].read().view(np.uint8))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="tiny", help="a preset's name: tiny, toy, 7b, 13b")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    model = model_config(default_config(options.size).model.to_dict())
    work = Path(tempfile.mkdtemp(prefix="convert_", dir=options.folder))
    try:
        source, ours, back = work / "source", work / "ours", work / "back"
        start = time.perf_counter()
        write_source(source, model)
        size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        print(f"made {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s", flush=True)
        result = {
            "size": options.size,
            "source_gb": round(size / 1e9, 3),
            "to_orbax": svit(
                *("convert", str(source), str(ours), "--to", "orbax"),
                *("--vocabulary", str(model.decoder.vocab)),
            )[0],
        }
        print(json.dumps(result), flush=True)
        result["to_llava_hf"] = svit("convert", str(ours), str(back), "--to", "llava-hf")[0]
        odd = differing(source, back)
        result |= {
            "differing_tensors": len(odd),
            **machine(),
            "command": f"python benchmarks/convert.py --size {options.size}",
        }
        print(json.dumps(result), flush=True)
        peak = max(result["to_orbax"]["peak_gib"], result["to_llava_hf"]["peak_gib"])
        if odd or (options.size == "7b" and peak > LIMIT_GIB):
            print(f"not as promised: {odd[:5]}, {peak} GiB of {LIMIT_GIB}", file=sys.stderr)
            return 1
        record(result, options.out, f"convert_{options.size}")
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
