"""What the tests of `svit convert` share: small checkpoints as others write them, and logits."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from parity_samples import batch_of, llava_inputs
from safetensors.torch import save_file
from torch_reference import SHAPES, our_parameters

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.checkpoints.hugging_face_import import ImportOptions
from svit_jax.checkpoints.workdir_format import import_workdir
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, abstract_model

PIECES = 290
CONFIG = dataclasses.replace(
    SHAPES["grouped"], decoder=dataclasses.replace(SHAPES["grouped"].decoder, vocab=PIECES)
)
STATISTICS = IMAGE_MEAN, IMAGE_STD


def options(**given) -> ImportOptions:
    return ImportOptions(STATISTICS, **given)


def save(model, folder: Path, tokenizer: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    return folder


def llava_key(name: str) -> str:
    """The original code's key for one of transformers' in-memory names, by the fact sheet."""
    name = re.sub(r"^model\.language_model\.", "model.", name)
    name = re.sub(r"^model\.multi_modal_projector\.linear_1", "model.mm_projector.0", name)
    name = re.sub(r"^model\.multi_modal_projector\.linear_2", "model.mm_projector.2", name)
    tower = "model.vision_tower.vision_tower.vision_model."
    return re.sub(r"^model\.vision_tower\.(vision_model\.)?", tower, name)


def llava_config() -> dict:
    decoder = CONFIG.decoder
    return {
        "model_type": "llava_llama",
        "hidden_size": decoder.embed,
        "intermediate_size": decoder.mlp,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        "head_dim": decoder.head_dim,
        "vocab_size": decoder.vocab,
        "rms_norm_eps": decoder.norm_eps,
        "rope_theta": decoder.rope_theta,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": CONFIG.vision.embed,
    }


def torch_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_llava(folder: Path, state: dict, tokenizer: Path, kind: str) -> Path:
    """A folder as the original code writes it: safetensors, one .bin, or .bin shards."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(llava_config()))
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    if kind == "safetensors":
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    elif kind == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        names = [f"pytorch_model-0000{n}-of-00003.bin" for n in (1, 2, 3)]
        places = {key: names[n % 3] for n, key in enumerate(sorted(state))}
        for name in names:
            torch.save({k: v for k, v in state.items() if places[k] == name}, folder / name)
        index = {"metadata": {}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def parameters_of(workdir: Path) -> dict[str, np.ndarray]:
    return {path: x.read() for path, x in import_workdir(workdir).parameters.items()}


def assert_same_parameters(found: dict[str, np.ndarray], reference) -> None:
    expected = our_parameters(reference, CONFIG)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def our_logits(parameters: dict[str, np.ndarray], config, samples) -> list[np.ndarray]:
    arrays = {path: jnp.asarray(x) for path, x in parameters.items()}
    model = with_parameters(abstract_model(config), arrays)
    length = max(map(len, samples))
    batch = batch_of(config, [[sample] for sample in samples], length, 1)

    hidden = jax.jit(model.hidden, static_argnames="compute")(
        batch.tokens,
        batch.segment_ids,
        batch.positions,
        batch.images,
        batch.vision_index,
        compute=Compute("float32"),
    )
    found = np.asarray(model.decoder.unembed(hidden))
    return [row[: len(sample)] for row, sample in zip(found, samples, strict=True)]


def torch_logits(model, samples, ids_config=CONFIG) -> list[np.ndarray]:
    with torch.no_grad():
        inputs = llava_inputs(ids_config, samples)
        found = model.eval()(**inputs).logits.numpy()
    return [row[: len(sample)] for row, sample in zip(found, samples, strict=True)]
