"""LoRA's files against PEFT: adapters come in, merged or apart, and ours load there."""

import json
import re

import numpy as np
import pytest
import torch
from checkpoint_samples import (
    CONFIG,
    PIECES,
    llava_config,
    llava_key,
    options,
    our_logits,
    parameters_of,
    save,
    torch_logits,
    torch_state,
)
from parity_samples import random_sample
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch_reference import our_parameters, random_llava

from data_pipeline.common.errors import UserError
from data_pipeline.text.tokenizer import train_tokenizer
from svit_jax.checkpoints.convert import convert
from svit_jax.checkpoints.workdir_format import import_workdir

RANK, ALPHA = 4, 12
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def adapted(base, targets: str = TARGETS, **given):
    """The base under PEFT, A and B random and small enough that activations stay near one."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.1, target_modules=targets, **given)
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(6)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The base as llava-hf, and a PEFT adapter beside it."""
    root = tmp_path_factory.mktemp("lora")
    train_tokenizer(["a cat on a mat", "What is this? It is a dog."], root / "t.model", PIECES)
    base = save(random_llava(CONFIG, seed=7), root / "base", root / "t.model")
    adapted(random_llava(CONFIG, seed=7)).save_pretrained(root / "adapter")
    return base, root / "adapter"


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(5)
    return [random_sample(CONFIG, rng, words, 1) for words in (10, 15)]


@pytest.mark.parametrize("names", ["as saved", "published", "run of LLaVA"])
def test_an_adapter_is_merged(names, folders, tmp_path, samples, differences):
    base, source = folders
    reference = adapted(random_llava(CONFIG, seed=7))
    expected = torch_logits(reference, samples)
    if names != "as saved":
        source = renamed_adapter(reference, names, tmp_path / "adapter")
    report = convert(source, tmp_path / "merged", "orbax", options(base=base))
    assert report.format == "lora"
    model = import_workdir(tmp_path / "merged").model
    assert model == CONFIG
    found = parameters_of(tmp_path / "merged")
    merged = our_parameters(reference.merge_and_unload(), CONFIG)
    for path, value in merged.items():
        differences.absolute("LoRA merged on import", found[path], value, 1e-6, path)
    for ours, theirs in zip(our_logits(found, model, samples), expected, strict=True):
        differences.absolute("logits after merging a PEFT adapter", ours, theirs, 1e-5)


def renamed_adapter(reference, names: str, folder):
    """The adapter under the names that the fact sheet gives for other writers."""
    folder.mkdir()
    adapter, projector = {}, {}
    for name, tensor in torch_state(reference).items():
        inner = name.removeprefix("base_model.model.").replace(".base_layer", "")
        inner = inner.replace(".default", "")
        if names == "published":
            inner = re.sub(r"^model\.language_model\.", "language_model.model.", inner)
        else:
            inner = llava_key(inner)
        if "lora_" in inner:
            adapter[f"base_model.model.{inner}"] = tensor
        elif "mm_projector" in inner:
            projector[f"base_model.model.{inner}"] = tensor
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    torch.save(adapter, folder / "adapter_model.bin")
    if names == "run of LLaVA":
        torch.save(projector, folder / "non_lora_trainables.bin")
        (folder / "config.json").write_text(json.dumps(llava_config()))
    return folder


def test_kept_apart_and_out_again(folders, tmp_path, samples, differences):
    base, source = folders
    reference = adapted(random_llava(CONFIG, seed=7))
    convert(source, tmp_path / "run", "orbax", options(base=base), keep_lora=True)
    model = import_workdir(tmp_path / "run").model
    assert model.lora is not None and (model.lora.rank, model.lora.alpha) == (RANK, ALPHA)
    assert model.lora.targets == ("q", "k", "v", "o", "gate", "up", "down")
    assert model.lora.dropout == 0.1
    ours = our_logits(parameters_of(tmp_path / "run"), model, samples)
    expected = torch_logits(reference, samples)
    for found, theirs in zip(ours, expected, strict=True):
        differences.absolute("logits with LoRA kept apart", found, theirs, 1e-5)
    convert(tmp_path / "run", tmp_path / "adapter", "lora", options())
    loaded = PeftModel.from_pretrained(random_llava(CONFIG, seed=7), tmp_path / "adapter")
    again = {name: x for name, x in loaded.state_dict().items() if "lora_" in name}
    first = {name: x for name, x in reference.state_dict().items() if "lora_" in name}
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    for found, theirs in zip(torch_logits(loaded, samples), expected, strict=True):
        differences.absolute("logits of our adapter in PEFT", found, theirs, 1e-6)
    # The projector was trained with it: PEFT puts it in place of the base's.
    other = random_llava(CONFIG, seed=7)
    for parameter in other.model.multi_modal_projector.parameters():
        parameter.data.zero_()
    loaded = PeftModel.from_pretrained(other, tmp_path / "adapter")
    for found, theirs in zip(torch_logits(loaded, samples), expected, strict=True):
        differences.absolute("logits of our adapter in PEFT", found, theirs, 1e-6)


def test_a_converted_base_and_export_of_the_whole(folders, tmp_path, differences):
    """An adapter onto our own workdir; taken out as llava-hf, LoRA is merged."""
    base, source = folders
    convert(base, tmp_path / "base", "orbax", options())
    convert(source, tmp_path / "run", "orbax", options(base=tmp_path / "base"), keep_lora=True)
    report = convert(tmp_path / "run", tmp_path / "whole", "llava-hf", options())
    assert "LoRA was merged into the decoder" in report.notes
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    reference = adapted(random_llava(CONFIG, seed=7)).merge_and_unload()
    key = "layers.2.self_attn.o_proj.weight"
    theirs = reference.state_dict()[f"model.language_model.{key}"]
    found = whole[f"language_model.model.{key}"]
    differences.absolute("LoRA merged on export", found, theirs, 1e-6)


def test_adapters_on_the_tower_are_refused(folders, tmp_path):
    base, _ = folders
    adapted(random_llava(CONFIG, seed=7), r".*\.q_proj").save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match=r"encoder\.layers\.0.* is no projection of the decoder"):
        convert(tmp_path / "adapter", tmp_path / "run", "orbax", options(base=base))
    assert not (tmp_path / "run").exists()
