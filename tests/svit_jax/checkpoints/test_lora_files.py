"""LoRA folders made by hand: merged by the closed form W + (alpha / r) B A, or kept apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from hand_made import (
    CLIP_CONFIG,
    LLAMA_CONFIG,
    LLAVA_CONFIG,
    clip_arrays,
    llama_arrays,
    projector_arrays,
    safetensors_bytes,
    write_folder,
    write_torch,
)

from data_pipeline.common.errors import UserError
from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.checkpoints.convert import convert
from svit_jax.checkpoints.hugging_face_import import ImportOptions
from svit_jax.checkpoints.source import find_tensors
from svit_jax.checkpoints.workdir_format import import_workdir

RNG = np.random.default_rng(0)
DECODER = llama_arrays(RNG)
PROJECTOR = projector_arrays(RNG)
TARGETS = ("self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj")
RANK, ALPHA = 2, 6.0
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.05}


def adapter_arrays() -> dict[str, np.ndarray]:
    found = {}
    for layer in range(2):
        for target in TARGETS:
            module = f"model.layers.{layer}.{target}"
            outputs, inputs = DECODER[f"{module}.weight"].shape
            start = f"base_model.model.{module}"
            found[f"{start}.lora_A.weight"] = RNG.standard_normal((RANK, inputs), np.float32)
            found[f"{start}.lora_B.weight"] = RNG.standard_normal((outputs, RANK), np.float32)
    return found


ADAPTER = adapter_arrays()


@pytest.fixture
def clip(tmp_path) -> Path:
    arrays = {f"vision_model.{name}": x for name, x in clip_arrays(RNG).items()}
    return write_folder(tmp_path / "clip", arrays, CLIP_CONFIG)


@pytest.fixture
def given(clip, tiny_data, tmp_path) -> ImportOptions:
    vicuna = write_folder(tmp_path / "vicuna", DECODER, LLAMA_CONFIG, tiny_data.tokenizer)
    return ImportOptions((IMAGE_MEAN, IMAGE_STD), vision_tower=clip, base=vicuna)


def write_run(folder: Path, arrays: dict, config: dict = CONFIG) -> Path:
    """As LLaVA leaves a LoRA run: the projector beside it, and a config.json of its own."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(arrays))
    projector = {f"base_model.model.{name}": x for name, x in PROJECTOR.items()}
    write_torch(folder / "non_lora_trainables.bin", projector)
    (folder / "config.json").write_text(json.dumps(LLAVA_CONFIG | {"image_aspect_ratio": "square"}))
    return folder


def test_a_run_is_merged_onto_vicuna(given, tmp_path):
    run = write_run(tmp_path / "lora", ADAPTER)
    report = convert(run, tmp_path / "merged", "llava", given)
    assert report.format == "lora" and report.notes == ("LoRA was merged into the decoder",)
    found = find_tensors(tmp_path / "merged")
    assert found.keys() == DECODER.keys() | PROJECTOR.keys()
    for name, base in (DECODER | PROJECTOR).items():
        value = found[name].read()
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" not in ADAPTER:
            assert value.tobytes() == base.tobytes(), name
            continue
        a, b = (ADAPTER[f"{module}.lora_{half}.weight"].astype(np.float64) for half in "AB")
        np.testing.assert_allclose(value, base + ALPHA / RANK * (b @ a), atol=5e-6, err_msg=name)


def test_kept_apart_it_comes_out_as_it_went_in(given, tmp_path):
    run = write_run(tmp_path / "lora", ADAPTER)
    convert(run, tmp_path / "apart", "orbax", given, keep_lora=True)
    model = import_workdir(tmp_path / "apart")
    assert model.model.lora is not None and model.image_mode == "crop"
    assert model.model.lora.targets == ("k", "o", "down")
    assert model.parameters["decoder/blocks/k_lora/b"].shape == (2, RANK, 1, 4)
    assert model.parameters["decoder/blocks/o_lora/a"].shape == (2, 3, 4, RANK)
    convert(tmp_path / "apart", tmp_path / "peft", "lora", given)
    found = find_tensors(tmp_path / "peft", ["adapter_model.safetensors"])
    for name, array in ADAPTER.items():
        key = name.replace("model.model.layers", "model.model.language_model.layers")
        assert found.pop(key).read().tobytes() == array.tobytes()
    assert len(found) == 4 and all("multi_modal_projector" in key for key in found)
    with pytest.raises(UserError, match="the base holds a LoRA of its own; merge it first"):
        again = ImportOptions((IMAGE_MEAN, IMAGE_STD), base=tmp_path / "apart")
        convert(run, tmp_path / "twice", "orbax", again)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"r": 0}, "r is 0"),
        ({"r": 3}, r"has shape \(2, 12\), the model \(3, 12\)"),
    ],
)
def test_other_adapters_are_refused(change, told, given, tmp_path):
    run = write_run(tmp_path / "lora", ADAPTER, CONFIG | change)
    with pytest.raises(UserError, match=told):
        convert(run, tmp_path / "out", "orbax", given)
    assert not (tmp_path / "out").exists()


def test_keys_that_do_not_fit(given, tmp_path):
    arrays = dict(ADAPTER)
    gone = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    del arrays[gone]
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj\.lora_B\.weight is missing"):
        convert(write_run(tmp_path / "a", arrays), tmp_path / "out", "orbax", given)
    arrays = ADAPTER | {"base_model.model.model.norm.odd": np.ones(2, np.float32)}
    with pytest.raises(UserError, match=r"norm\.odd .* is not in the model"):
        convert(write_run(tmp_path / "b", arrays), tmp_path / "out", "orbax", given)
    with pytest.raises(UserError, match="give the model that it was trained on as --base"):
        convert(tmp_path / "b", tmp_path / "out", "orbax", ImportOptions((IMAGE_MEAN, IMAGE_STD)))
