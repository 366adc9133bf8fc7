"""`svit convert` on checkpoints made by hand: bytes kept, errors whole, nothing half written."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from hand_made import (
    CLIP_CONFIG,
    LLAMA_CONFIG,
    LLAVA_CONFIG,
    clip_arrays,
    llama_arrays,
    projector_arrays,
    write_folder,
    write_torch,
)

import svit_jax
from data_pipeline.common.errors import UserError
from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.checkpoints.convert import convert
from svit_jax.checkpoints.hugging_face_import import ImportOptions
from svit_jax.checkpoints.lazy_array import BFLOAT16
from svit_jax.checkpoints.source import find_tensors
from svit_jax.checkpoints.workdir_format import import_workdir
from svit_jax.cli import main
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.loop import train
from svit_jax.training.optimizer import trainable_paths
from svit_jax.training.start import initial_state
from svit_jax.training.state import plan_state

TOWER_INSIDE = "model.vision_tower.vision_tower.vision_model."
TOWER_HF = "vision_tower.vision_model."


def options(**given) -> ImportOptions:
    return ImportOptions((IMAGE_MEAN, IMAGE_STD), **given)


def prefixed(prefix: str, arrays: dict) -> dict:
    return {prefix + name: array for name, array in arrays.items()}


def to_llava_hf(name: str) -> str:
    name = name.replace("model.mm_projector.0", "multi_modal_projector.linear_1")
    name = name.replace("model.mm_projector.2", "multi_modal_projector.linear_2")
    return "language_model." + name if name.startswith(("model.", "lm_head")) else name


@pytest.fixture
def arrays() -> dict:
    """A whole LLaVA in bfloat16, without its tower."""
    rng = np.random.default_rng(1)
    return llama_arrays(rng, BFLOAT16) | projector_arrays(rng, BFLOAT16)


@pytest.fixture
def tower() -> dict:
    return clip_arrays(np.random.default_rng(2), BFLOAT16)


@pytest.fixture
def clip(tower, tmp_path) -> Path:
    return write_folder(tmp_path / "clip", prefixed("vision_model.", tower), CLIP_CONFIG)


@pytest.fixture
def llava(arrays, tiny_data, tmp_path) -> Path:
    return write_folder(tmp_path / "llava", arrays, LLAVA_CONFIG, tiny_data.tokenizer)


def assert_bytes(folder: Path, expected: dict) -> None:
    found = find_tensors(folder)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        assert found[name].read().tobytes() == array.tobytes(), name


def test_llava_there_and_back_byte_for_byte(llava, clip, arrays, tower, tmp_path):
    report = convert(llava, tmp_path / "run", "orbax", options(vision_tower=clip))
    assert (report.format, report.dtypes) == ("llava", ("bfloat16",))
    # Block 24 of CLIP, here the third, and the post-norm.
    assert set(report.kept) == {
        f"vision_model.{name}"
        for name in tower
        if name.startswith(("encoder.layers.2.", "post_layernorm"))
    }
    convert(tmp_path / "run", tmp_path / "released", "llava", options())
    assert_bytes(tmp_path / "released", arrays)
    convert(tmp_path / "run", tmp_path / "whole", "llava", options(), with_tower=True)
    assert_bytes(tmp_path / "whole", arrays | prefixed(TOWER_INSIDE, tower))
    # SVIT's own full checkpoint: the tower inside. Its sizes come from shapes, with heads of 64.
    again = convert(tmp_path / "whole", tmp_path / "again", "llava", options(), with_tower=True)
    assert "told by its shapes" in again.notes[0]
    assert_bytes(tmp_path / "again", arrays | prefixed(TOWER_INSIDE, tower))


def test_llava_hf_there_and_back_with_its_rows(llava, clip, arrays, tower, tmp_path):
    """Straight from one format to the other: 62 of 64 new rows are the mean of all."""
    convert(llava, tmp_path / "hf", "llava-hf", options(vision_tower=clip))
    found = find_tensors(tmp_path / "hf")
    expected = {to_llava_hf(name): x for name, x in arrays.items()} | prefixed(TOWER_HF, tower)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        read = found[name].read()
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert read.shape == (64, 12)
            mean = array.astype(np.float32).mean(0).astype(BFLOAT16)
            np.testing.assert_array_equal(read[40:], np.broadcast_to(mean, (24, 12)))
            read = read[:40]
        assert read.tobytes() == array.tobytes(), name
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["image_token_index"], config["text_config"]["vocab_size"]) == (40, 64)
    report = convert(tmp_path / "hf", tmp_path / "run", "orbax", options(vocabulary=40))
    assert {"embed_tokens.weight.rows", "lm_head.weight.rows"} <= set(report.kept)
    assert import_workdir(tmp_path / "run").model.decoder.vocab == 40
    convert(tmp_path / "run", tmp_path / "back", "llava-hf", options())
    assert_bytes(tmp_path / "back", {name: x.read() for name, x in found.items()})
    convert(tmp_path / "run", tmp_path / "llava_again", "llava", options())
    assert_bytes(tmp_path / "llava_again", arrays)
    kept = convert(tmp_path / "hf", tmp_path / "all", "orbax", options(vocabulary=None))
    assert "lm_head.weight.rows" not in kept.kept
    assert import_workdir(tmp_path / "all").model.decoder.vocab == 64


def test_vicuna_from_torch_files(clip, arrays, tiny_data, tmp_path):
    vicuna = write_folder(tmp_path / "vicuna", {}, LLAMA_CONFIG, tiny_data.tokenizer)
    (vicuna / "model.safetensors").unlink()
    decoder = {name: x for name, x in arrays.items() if "mm_projector" not in name}
    write_torch(vicuna / "pytorch_model.bin", decoder)
    projector = {name: x for name, x in arrays.items() if "mm_projector" in name}
    file = write_torch(tmp_path / "mm_projector.bin", projector)
    given = options(vision_tower=clip, projector=file)
    assert convert(vicuna, tmp_path / "run", "orbax", given).format == "vicuna"
    convert(tmp_path / "run", tmp_path / "llava_again", "llava", options())
    assert_bytes(tmp_path / "llava_again", arrays)
    fresh = convert(vicuna, tmp_path / "fresh", "orbax", options(vision_tower=clip))
    assert fresh.notes == ("the projector is new (seed 0), as no --projector was given",)


def test_stage_1_begins_with_vicuna_and_clip(clip, arrays, tower, tiny_data, make_run, tmp_path):
    """Both parts as they came, and a projector made anew from the run's seed."""
    decoder = {name: x for name, x in arrays.items() if "mm_projector" not in name}
    vicuna = write_folder(tmp_path / "vicuna", decoder, LLAMA_CONFIG, tiny_data.tokenizer)
    convert(vicuna, tmp_path / "base", "orbax", options(vision_tower=clip))
    model = import_workdir(tmp_path / "base").model
    run = make_run("pretrain", f"checkpoint.init={tmp_path / 'base'}", "train.seed=7")
    run = dataclasses.replace(run, model=model)
    trainable = trainable_paths(run.optim.trainable, flat_parameters(abstract_model(model)))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = initial_state(run, plan_state(model, trainable, optax.adam(1.0), mesh, run.rules))
    assert state.trained.keys() == {
        f"projector/{n}" for n in ("fc1", "fc1_bias", "fc2", "fc2_bias")
    }
    new = jax.jit(lambda: flat_parameters(initial_model(model, 7)))()
    for path, array in state.trained.items():
        np.testing.assert_array_equal(array, new[path], err_msg=path)
    for layer in range(2):
        q = decoder[f"model.layers.{layer}.self_attn.q_proj.weight"].astype(np.float32)
        found = np.asarray(state.frozen["decoder/blocks/q"][layer])
        np.testing.assert_array_equal(found, q.T.reshape(12, 3, 4))
        fc1 = tower[f"encoder.layers.{layer}.mlp.fc1.weight"].astype(np.float32)
        np.testing.assert_array_equal(state.frozen["tower/blocks/fc1"][layer], fc1.T)
    words = decoder["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(state.frozen["decoder/embedding"], words)


def test_a_converted_workdir_answers_and_starts_a_run(tiny_data, make_run, tmp_path):
    """In bfloat16 as it came, or cast; trained on in float32; out again with its tower's rest."""
    rows = 400
    rng = np.random.default_rng(3)
    arrays = llama_arrays(rng, BFLOAT16, rows) | projector_arrays(rng, BFLOAT16)
    arrays |= prefixed(TOWER_INSIDE, clip_arrays(rng, BFLOAT16))
    config = LLAVA_CONFIG | {"vocab_size": rows}
    llava = write_folder(tmp_path / "llava", arrays, config, tiny_data.tokenizer)
    convert(llava, tmp_path / "base", "orbax", options())
    mesh = MeshConfig(replica=2, fsdp=4)
    model = svit_jax.load(tmp_path / "base", mesh=mesh)
    assert {str(x.dtype) for x in model.engine.parameters.values()} == {"bfloat16"}
    answer = model.answer(None, "What is this?", max_new_tokens=3)
    wide = svit_jax.load(tmp_path / "base", parameter_dtype="float32", mesh=mesh)
    assert {str(x.dtype) for x in wide.engine.parameters.values()} == {"float32"}
    assert wide.answer(None, "What is this?", max_new_tokens=3) == answer
    sizes = [
        f"model.{part}.{key}={value}"
        for part, section in (
            ("vision", {"image_size": 8, "patch_size": 4, "embed": 8, "heads": 1, "mlp": 6}),
            ("decoder", {"vocab": rows, "embed": 12, "heads": 3, "kv_heads": 1, "head_dim": 4}),
            ("decoder", {"mlp": 10}),
        )
        for key, value in section.items()
    ]
    init = f"checkpoint.init={tmp_path / 'base'}"
    run = make_run("finetune", *sizes, init, "train.steps=1", "mesh.fsdp=4", "mesh.replica=2")
    assert run.model == import_workdir(tmp_path / "base").model
    train(run, tmp_path / "run")
    # The run keeps no block 24 itself: it is found where the run began.
    convert(tmp_path / "run", tmp_path / "out", "llava", options(), dtype="bfloat16",
            with_tower=True)  # fmt: skip
    out = find_tensors(tmp_path / "out")
    assert out.keys() == arrays.keys()
    for name, array in arrays.items():
        same = out[name].read().tobytes() == array.tobytes()
        assert same or "vision_tower" not in name, f"{name} was frozen"
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"block 2 and post_layernorm .* --vision-tower"):
        convert(tmp_path / "run", tmp_path / "hf", "llava-hf", options())
    convert(tmp_path / "run", tmp_path / "hf", "llava-hf", options(vision_tower=llava))


def test_all_keys_that_do_not_fit_are_one_error(arrays, clip, tiny_data, tmp_path):
    del arrays["model.layers.1.self_attn.q_proj.weight"]
    arrays["model.norm.weight"] = np.ones(13, BFLOAT16)
    arrays["model.layers.0.self_attn.q_proj.bias"] = np.ones(12, BFLOAT16)
    arrays["model.layers.2.mlp.up_proj.weight"] = np.ones((10, 12), BFLOAT16)
    arrays["model.layers.0.mlp.up_proj.weight"] = np.ones((10, 12), np.float32)
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, BFLOAT16)
    llava = write_folder(tmp_path / "llava", arrays, LLAVA_CONFIG, tiny_data.tokenizer)
    with pytest.raises(UserError) as error:
        convert(llava, tmp_path / "run", "orbax", options(vision_tower=clip))
    text = str(error.value)
    assert "model.layers.1.self_attn.q_proj.weight is missing" in text
    assert "model.norm.weight in model.safetensors has shape (13,), the model (12,)" in text
    assert "model.layers.0.self_attn.q_proj.bias is not in the model" in text
    assert "model.layers.2.mlp.up_proj.weight in model.safetensors is not in the model" in text
    assert "mlp.up_proj.weight are of several dtypes (bfloat16, float32)" in text
    assert "inv_freq" not in text
    assert [path.name for path in tmp_path.iterdir() if "run" in path.name] == []


@pytest.mark.parametrize(
    "change, told",
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', the model has 'silu'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio"),
        ({"mm_vision_select_layer": [1, 2]}, "feature layer"),
    ],
)
def test_other_models_are_refused(change, told, arrays, clip, tiny_data, tmp_path):
    folder = write_folder(tmp_path / "x", arrays, LLAVA_CONFIG | change, tiny_data.tokenizer)
    with pytest.raises(UserError, match=r"another model than LLaVA-1\.5") as error:
        convert(folder, tmp_path / "run", "orbax", options(vision_tower=clip))
    assert told in str(error.value)


def test_formats_are_told_by_config_and_keys(llava, clip, arrays, tmp_path):
    with pytest.raises(UserError, match=r"is a llava checkpoint .* not a vicuna one"):
        convert(llava, tmp_path / "run", "orbax", options(vision_tower=clip), given="vicuna")
    with pytest.raises(UserError, match=r"holds no vision tower .*names openai/clip"):
        convert(llava, tmp_path / "run", "orbax", options())
    with pytest.raises(UserError, match="holds a clip alone; give it as --vision-tower"):
        convert(clip, tmp_path / "run", "orbax", options())
    odd = write_folder(tmp_path / "odd", arrays, LLAMA_CONFIG)
    with pytest.raises(UserError, match=r"keys are those of llava, its config\.json is that of v"):
        convert(odd, tmp_path / "run", "orbax", options(vision_tower=clip))
    other = write_folder(tmp_path / "other", {"h.0.attn.bias": np.ones(2, BFLOAT16)}, {})
    with pytest.raises(UserError, match="none of the 1 keys"):
        convert(other, tmp_path / "run", "orbax", options())
    with pytest.raises(UserError, match="is there already"):
        convert(llava, clip, "orbax", options(vision_tower=clip))
    with pytest.raises(UserError, match="no LoRA, so there is no adapter"):
        convert(llava, tmp_path / "run", "lora", options(vision_tower=clip))
    (llava / "tokenizer.model").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.model .* --tokenizer"):
        convert(llava, tmp_path / "run", "orbax", options(vision_tower=clip))
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".*"))


def test_the_command(llava, clip, tmp_path, capsys):
    arguments = ["convert", "--from", "llava", str(llava), "--to", "orbax", str(tmp_path / "run")]
    assert main([*arguments, "--vision-tower", str(clip), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["to"], report["dtypes"]) == ("llava", "orbax", ["bfloat16"])
    assert main(["convert", str(llava), str(tmp_path / "x"), "--to", "orbax"]) == 1
    assert "--vision-tower" in capsys.readouterr().err
    assert main(["convert", str(llava), "y", "--to", "orbax", "--vocabulary", "many"]) == 1
    assert "neither a number of tokens nor 'all'" in capsys.readouterr().err


def test_killed_and_started_again(llava, clip, arrays, tmp_path):
    """kill -9 while parameters are written: no target, and the next run leaves no trace of it."""
    target = tmp_path / "run"
    code = (
        "import os, sys, svit_jax.checkpoints.orbax_store as store\n"
        "saved = []\n"
        "real = store.ocp_v1.partial.save\n"
        "def save(*given):\n"
        "    real(*given)\n"
        "    saved.append(1)\n"
        "    if len(saved) == 5: os.kill(os.getpid(), 9)\n"
        "store.ocp_v1.partial.save = save\n"
        "from svit_jax.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["convert", str(llava), str(target), "--to", "orbax", "--vision-tower", str(clip)]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not target.exists() and (tmp_path / ".run.partial").exists()
    assert main(arguments) == 0
    assert not list(tmp_path.glob(".*"))
    convert(target, tmp_path / "back", "llava", options())
    assert_bytes(tmp_path / "back", arrays)


def test_memory_follows_the_largest_tensor_not_the_model(tmp_path):
    """Ten parameters of 16 MiB, of which one passes at a time, and the writer's buffer."""
    code = (
        "import resource, sys, pathlib, numpy as np\n"
        "from svit_jax.checkpoints.lazy_array import LazyArray\n"
        "from svit_jax.checkpoints.orbax_store import write_parameters, read_parameters\n"
        "shape, kind = (4, 1024, 1024), np.dtype(np.float32)\n"
        "def read():\n"
        "    return np.random.default_rng(0).standard_normal(shape, np.float32)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "one = {'warm/up': LazyArray(shape, kind, '', read)}\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "(root / 'a').mkdir(); (root / 'b').mkdir()\n"
        "write_parameters(root / 'a' / 'parameters', one, lambda n: None)\n"
        "before = peak()\n"
        "many = {f'x/{n}': LazyArray(shape, kind, '', read) for n in range(10)}\n"
        "write_parameters(root / 'b' / 'parameters', many, lambda n: None)\n"
        "for x in read_parameters(root / 'b').values(): x.read()\n"
        "print(peak() - before)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert float(found.stdout) < 3 * 16
