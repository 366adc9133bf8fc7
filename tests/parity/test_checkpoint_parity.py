"""`svit convert` against transformers: its checkpoints come in, ours load there, logits agree."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_samples import (
    CONFIG,
    PIECES,
    assert_same_parameters,
    llava_config,
    llava_key,
    options,
    our_logits,
    parameters_of,
    save,
    torch_logits,
    torch_state,
    write_llava,
)
from parity_samples import random_sample
from safetensors.torch import load_file, save_file
from torch_reference import image_token, our_parameters, random_decoder, random_llava, random_tower
from transformers import AutoProcessor, LlamaForCausalLM, LlavaForConditionalGeneration

from data_pipeline.text.tokenizer import train_tokenizer
from svit_jax.checkpoints.convert import convert
from svit_jax.checkpoints.workdir_format import import_workdir


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(["a cat on a mat", "What is this? It is a dog."], path, PIECES)
    return path


@pytest.fixture(scope="module")
def reference() -> LlavaForConditionalGeneration:
    return random_llava(CONFIG, seed=3)


@pytest.fixture(scope="module")
def llava_hf(reference, tokenizer, tmp_path_factory) -> Path:
    return save(reference, tmp_path_factory.mktemp("llava_hf"), tokenizer)


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
