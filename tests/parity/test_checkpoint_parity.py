"""`svit convert` against transformers: its checkpoints come in, ours load there, logits agree."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity_samples import batch_of, llava_inputs, random_sample
from safetensors.torch import load_file, save_file
from torch_reference import (
    SHAPES,
    image_token,
    our_parameters,
    random_decoder,
    random_llava,
    random_tower,
)
from transformers import AutoProcessor, LlamaForCausalLM, LlavaForConditionalGeneration

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from data_pipeline.text.tokenizer import train_tokenizer
from svit_jax.checkpoints.convert import convert
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


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(["a cat on a mat", "What is this? It is a dog."], path, PIECES)
    return path


@pytest.fixture(scope="module")
def reference() -> LlavaForConditionalGeneration:
    return random_llava(CONFIG, seed=3)


def save(model, folder: Path, tokenizer: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    return folder


@pytest.fixture(scope="module")
def llava_hf(reference, tokenizer, tmp_path_factory) -> Path:
    return save(reference, tmp_path_factory.mktemp("llava_hf"), tokenizer)


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


@pytest.fixture(scope="module")
def tower_folder(reference, tmp_path_factory) -> Path:
    """The reference's tower as a CLIP of its own."""
    tower = random_tower(CONFIG.vision, seed=9)
    own = {
        re.sub(r"^model\.vision_tower\.(vision_model\.)?", "", name): tensor
        for name, tensor in reference.state_dict().items()
        if "vision_tower" in name
    }
    names = {re.sub(r"^vision_model\.", "", name): name for name in tower.state_dict()}
    tower.load_state_dict({names[local]: tensor for local, tensor in own.items()})
    folder = tmp_path_factory.mktemp("clip")
    tower.save_pretrained(folder)
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


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(4)
    return [random_sample(CONFIG, rng, words, 1) for words in (11, 17)]


def test_llava_hf_comes_in(llava_hf, reference, tmp_path, samples, differences):
    report = convert(llava_hf, tmp_path / "run", "orbax", options())
    assert report.format == "llava-hf" and "as config.json says" in report.reason
    assert_same_parameters(parameters_of(tmp_path / "run"), reference)
    model = import_workdir(tmp_path / "run").model
    assert model == CONFIG
    ours = our_logits(parameters_of(tmp_path / "run"), model, samples)
    for found, expected in zip(ours, torch_logits(reference, samples), strict=True):
        differences.absolute("logits after import of llava-hf", found, expected, 1e-5)


def renamed(state: dict, layout: str) -> dict:
    """transformers' in-memory names in each layout that is found on disks."""
    found = {}
    for name, tensor in state.items():
        inner = re.sub(r"^model\.vision_tower\.(vision_model\.)?", "TOWER", name)
        if layout.startswith("memory"):
            inner = inner.replace("TOWER", "model.vision_tower.")
        else:
            inner = re.sub(r"^model\.language_model\.", "language_model.model.", inner)
            inner = re.sub(r"^lm_head", "language_model.lm_head", inner)
            inner = re.sub(r"^model\.multi_modal", "multi_modal", inner)
            inner = inner.replace("TOWER", "vision_tower.")
        if layout.endswith("vision_model"):
            inner = inner.replace("vision_tower.", "vision_tower.vision_model.")
        found[inner] = tensor
    return found


@pytest.mark.parametrize("layout", ["disk", "disk_vision_model", "memory", "memory_vision_model"])
def test_every_layout_of_llava_hf(layout, llava_hf, reference, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (source / name).write_bytes((llava_hf / name).read_bytes())
    state = renamed(torch_state(reference), layout)
    save_file(state, source / "model.safetensors", {"format": "pt"})
    convert(source, tmp_path / "run", "orbax", options())
    assert_same_parameters(parameters_of(tmp_path / "run"), reference)
    convert(tmp_path / "run", tmp_path / "back", "llava-hf", options())
    back = load_file(tmp_path / "back" / "model.safetensors")
    published = renamed(torch_state(reference), "disk_vision_model")
    assert back.keys() == published.keys()
    for key, tensor in published.items():
        assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["safetensors", "bin", "shards"])
def test_llava_round_trip(kind, dtype, reference, tokenizer, tmp_path):
    state = {
        llava_key(name): tensor.to(getattr(torch, dtype))
        for name, tensor in torch_state(reference).items()
    }
    source = write_llava(tmp_path / "source", state, tokenizer, kind)
    clip = tmp_path / "clip"
    clip.mkdir()
    vision = {"vision_config": reference.config.vision_config.to_dict()}
    (clip / "config.json").write_text(json.dumps(vision))
    save_file({k: v for k, v in state.items() if "vision_tower" in k}, clip / "model.safetensors")
    report = convert(source, tmp_path / "run", "orbax", options(vision_tower=clip))
    assert report.format == "llava" and report.dtypes == (dtype,)
    convert(tmp_path / "run", tmp_path / "back", "llava", options(), with_tower=True)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key
    # Without the tower, as the released checkpoints are.
    convert(tmp_path / "run", tmp_path / "released", "llava", options())
    released = load_file(tmp_path / "released" / "model.safetensors")
    assert released.keys() == {key for key in state if "vision_tower" not in key}
    written = json.loads((tmp_path / "released" / "config.json").read_text())
    assert {key: written[key] for key in llava_config()} == llava_config()


def test_llava_hf_goes_out(
    llava_hf, reference, tokenizer, tower_folder, tmp_path, samples, differences
):
    """From the original layout: transformers loads it whole, new rows and all, logits agree."""
    state = {llava_key(name): tensor for name, tensor in torch_state(reference).items()}
    released = {key: tensor for key, tensor in state.items() if "vision_tower" not in key}
    source = write_llava(tmp_path / "source", released, tokenizer, "bin")
    convert(source, tmp_path / "run", "orbax", options(vision_tower=tower_folder))
    assert_same_parameters(parameters_of(tmp_path / "run"), reference)
    convert(tmp_path / "run", tmp_path / "hf", "llava-hf", options())
    loaded, info = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    rows = loaded.get_input_embeddings().weight.shape[0]
    assert rows == 320 and loaded.config.image_token_index == PIECES
    ours = our_logits(parameters_of(tmp_path / "run"), CONFIG, samples)
    theirs = torch_logits(loaded, samples, _with_image_token(CONFIG))
    for found, expected in zip(ours, theirs, strict=True):
        differences.absolute("logits after export to llava-hf", found, expected[:, :PIECES], 1e-5)
    processor = AutoProcessor.from_pretrained(tmp_path / "hf")
    prompt = "USER: <image>\nWhat is this? ASSISTANT:"
    picture = np.zeros((30, 20, 3), np.uint8)
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    assert int((inputs["input_ids"] == PIECES).sum()) == CONFIG.vision.patches
    assert inputs["pixel_values"].shape[-2:] == (24, 24)
    generated = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert generated == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PIECES + 1}


def _with_image_token(config):
    """A config whose `image_token` is the first row that export added."""
    decoder = dataclasses.replace(config.decoder, vocab=config.decoder.vocab + 1)
    assert image_token(dataclasses.replace(config, decoder=decoder)) == config.decoder.vocab
    return dataclasses.replace(config, decoder=decoder)


def test_llava_goes_out_and_maps_onto_transformers(llava_hf, reference, tmp_path, samples):
    convert(llava_hf, tmp_path / "llava", "llava", options(), with_tower=True)
    back = load_file(tmp_path / "llava" / "model.safetensors")
    names = {llava_key(name): name for name in reference.state_dict()}
    assert back.keys() == names.keys()
    again = random_llava(CONFIG, seed=11)
    again.load_state_dict({names[key]: tensor for key, tensor in back.items()})
    for found, expected in zip(
        torch_logits(again, samples), torch_logits(reference, samples), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_vicuna_with_clip_and_projector(reference, tower_folder, tokenizer, tmp_path):
    decoder = random_decoder(CONFIG.decoder, seed=5)
    vicuna = save(decoder, tmp_path / "vicuna", tokenizer)
    projector = {
        llava_key(name): tensor
        for name, tensor in torch_state(reference).items()
        if "multi_modal" in name
    }
    torch.save(projector, tmp_path / "mm_projector.bin")
    report = convert(
        vicuna,
        tmp_path / "run",
        "orbax",
        options(vision_tower=tower_folder, projector=tmp_path / "mm_projector.bin"),
    )
    assert report.format == "vicuna" and not report.notes
    expected = our_parameters(reference, CONFIG) | our_parameters(decoder, CONFIG)
    found = parameters_of(tmp_path / "run")
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    fresh = convert(vicuna, tmp_path / "fresh", "orbax", options(vision_tower=tower_folder))
    assert "projector is new" in fresh.notes[0]
    assert LlamaForCausalLM.from_pretrained(vicuna) is not None


def test_rows_past_the_vocabulary(llava_hf, reference, tmp_path):
    """Dropped rows are kept beside, and stand where they stood after an export."""
    report = convert(llava_hf, tmp_path / "run", "orbax", options(vocabulary=280))
    assert {"embed_tokens.weight.rows", "lm_head.weight.rows"} <= set(report.kept)
    parameters = parameters_of(tmp_path / "run")
    assert parameters["decoder/embedding"].shape[0] == 280
    convert(tmp_path / "run", tmp_path / "back", "llava-hf", options())
    back = LlavaForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert back.config.image_token_index == image_token(CONFIG)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
