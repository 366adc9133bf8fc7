"""ConfigDict to dataclasses: what a user can misspell, and what is told of it."""

import dataclasses
import inspect

import pytest
from ml_collections import ConfigDict

from data_pipeline.common.errors import UserError
from svit_jax.config import _leaves, build, default_config, load_config, run_config
from svit_jax.models.presets import PRESETS
from svit_jax.sharding.mesh import MeshConfig
from svit_jax.training.optimizer import OptimConfig
from svit_jax.training.settings import DataConfig

DATA = ("data.train=somewhere", "data.tokenizer=some.model")
FINETUNE = "svit_v1_5_7b_finetune.py"


@pytest.fixture
def load(configs):
    return lambda spec, *overrides: load_config(f"{configs}/{spec}", overrides)


def test_every_config_is_built(configs, load):
    """Each file, at its published size and, where it takes one, in size "tiny"."""
    files = sorted(configs.glob("*.py"))
    assert len(files) >= 5
    for file in files:
        arguments = ["scratch", "pretrain", "finetune"] if file.stem == "toy" else ["", "tiny"]
        for argument in arguments:
            spec = f"{file.name}:{argument}" if argument else file.name
            config = run_config(load(spec, *DATA))
            if argument == "tiny":
                assert config.model.decoder.embed == PRESETS["tiny"]["decoder"]["embed"]


def test_sizes_7b_and_13b_differ_in_the_model_alone(load):
    for stage in ("pretrain", "finetune", "lora"):
        small, large = (run_config(load(f"svit_v1_5_{s}_{stage}.py", *DATA)) for s in ("7b", "13b"))
        assert small.model.decoder.embed == 4096 and large.model.decoder.embed == 5120
        assert dataclasses.replace(large, model=small.model) == small


def test_published_recipe(load):
    """LLaVA-1.5's pretrain.sh and finetune.sh, which SVIT-v1.5 trains with."""
    one = run_config(load("svit_v1_5_13b_pretrain.py", *DATA))
    two = run_config(load("svit_v1_5_13b_finetune.py", *DATA))
    for config, rate, rows in ((one, 1e-3, 256), (two, 2e-5, 128)):
        optim = config.optim
        assert (optim.learning_rate, config.data.batch_size) == (rate, rows)
        assert (optim.b1, optim.b2, optim.eps) == (0.9, 0.999, 1e-8)
        assert (optim.weight_decay, optim.warmup_ratio, optim.clip_norm) == (0, 0.03, 0)
        assert (config.data.row_length, config.train.epochs) == (2048, 1)
        assert (config.compute.remat_decoder, config.compute.dtype) == ("full", "bfloat16")
        assert config.train.loss_groups == 8
    assert (one.data.template, one.data.image_mode) == ("plain", "crop")
    assert (two.data.template, two.data.image_mode) == ("v1", "pad")
    assert one.optim.trainable == ("projector/.*",)
    assert set(two.optim.trainable) == {"projector/.*", "decoder/.*"}


def test_fewer_than_80_keys():
    assert len(_leaves(default_config("7b"))) < 80


def test_overrides_take_the_type_of_the_key(load):
    config = load(
        FINETUNE,
        "optim.learning_rate=1e-3",
        "train.steps=7",
        "model.compute.remat_decoder=dots",
        "optim.trainable=projector/.*,tower/.*",
        "data.plan=packed",
        "data.train=a=b",
    )
    assert config.optim.learning_rate == 1e-3 and config.train.steps == 7
    assert config.model.compute.remat_decoder == "dots"
    assert config.optim.trainable == ("projector/.*", "tower/.*")
    assert (config.data.plan, config.data.train) == ("packed", "a=b")


@pytest.mark.parametrize(
    "override, message",
    [
        ("optim.learning_rat=1", r"no key 'optim\.learning_rat'; .*'optim\.learning_rate'"),
        ("optm.learning_rate=1", r"no key 'optm\.learning_rate'; .*'optim\.learning_rate'"),
        ("mode.vision.layers=1", r"nearest is 'model\.vision\.layers'"),
        ("data=1", r"no key 'data'"),
        ("data.train.deeper=1", r"no key 'data\.train\.deeper'; the nearest is 'data\.train'"),
        ("train.steps", "has no '='"),
        ("train.steps=many", r"'train\.steps' is a int, and 'many' is not one"),
        ("train.steps=1.5", r"'train\.steps' is a int"),
        ("optim.learning_rate=fast", r"'optim\.learning_rate' is a float"),
    ],
)
def test_wrong_overrides(load, override, message):
    with pytest.raises(UserError, match=message):
        load(FINETUNE, override)


def test_lora_is_none_at_rank_zero_and_checked(load):
    assert run_config(load(FINETUNE, *DATA)).model.lora is None
    assert run_config(load(FINETUNE, *DATA, "model.lora.rank=3")).model.lora.rank == 3
    lora = "svit_v1_5_7b_lora.py:tiny"
    with pytest.raises(
        UserError, match=r"'model\.lora\.targets' is \('qkv',\); choose some of q, k"
    ):
        run_config(load(lora, *DATA, "model.lora.targets=qkv"))
    with pytest.raises(
        UserError, match=r"rank=128, alpha=256\.0, dropout=1\.0; .* dropout in \[0, 1"
    ):
        run_config(load(lora, *DATA, "model.lora.dropout=1.0"))
    with pytest.raises(UserError, match=r"rank=-1"):
        run_config(load(lora, *DATA, "model.lora.rank=-1"))


def test_literal_choices_are_listed(load):
    with pytest.raises(UserError, match=r"'model\.compute\.frozen_dtype' is 'half'; choose one of"):
        run_config(load(FINETUNE, *DATA, "model.compute.frozen_dtype=half"))
    with pytest.raises(UserError, match=r"'data\.plan' is 'packd'; choose one of.*packed.*padded"):
        run_config(load(FINETUNE, *DATA, "data.plan=packd"))
    with pytest.raises(UserError, match=r"'data\.image_mode' is 'square'.*pad.*crop"):
        run_config(load(FINETUNE, *DATA, "data.image_mode=square"))
    with pytest.raises(UserError, match=r"'data\.after_eos' is '4\.3'.*legacy.*4\.31.*4\.37"):
        run_config(load(FINETUNE, *DATA, "data.after_eos=4.3"))


@pytest.mark.parametrize("key", ["data.train", "data.tokenizer", "optim.trainable"])
def test_required_keys_may_not_be_empty(load, key):
    with pytest.raises(UserError, match=rf"'{key}' is empty; .*--{key}="):
        run_config(load(FINETUNE, *DATA, f"{key}="))


def test_unknown_keys_of_a_config_file():
    config = default_config("tiny")
    config.data.update(train="a", tokenizer="b")
    config.optim.trainable = (".*",)
    config.train.stpes = 3
    with pytest.raises(UserError, match=r"no key 'train\.stpes'; the nearest is 'train\.steps'"):
        run_config(config)
    del config.train.stpes
    config.optimizer = ConfigDict()
    with pytest.raises(UserError, match="no section 'optimizer'; the nearest is 'optim'"):
        run_config(config)
    del config.optimizer
    del config.mesh
    with pytest.raises(UserError, match="lacks the section 'mesh'"):
        run_config(config)


def test_wrong_types_of_a_config_file():
    with pytest.raises(UserError, match=r"'mesh\.fsdp' is '8', a str; it must be a int"):
        build(MeshConfig, {"fsdp": "8"}, "mesh")
    with pytest.raises(UserError, match=r"'optim\.trainable' is 'projector/\.\*', a str"):
        section = {"learning_rate": 1e-3, "trainable": "projector/.*"}
        build(OptimConfig, section, "optim")
    with pytest.raises(UserError, match=r"lacks the key 'data\.batch_size'"):
        build(DataConfig, {"train": "a", "tokenizer": "b", "row_length": 8}, "data")
    found = build(OptimConfig, {"learning_rate": 1, "trainable": ["a"]}, "optim")
    assert found == OptimConfig(1.0, ("a",)) and isinstance(found.learning_rate, float)


def test_config_files_that_fail_say_so(load, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.py"):
        load_config(str(tmp_path / "nowhere.py"))
    with pytest.raises(UserError, match=r"toy\.py:finetun fails: ValueError: there is no stage"):
        load("toy.py:finetun")
    with pytest.raises(UserError, match="there is no 'huge'; choose among sizes \\(7b, 13b"):
        load(f"{FINETUNE}:huge")
    for name, text, message in (
        ("a.txt", "", "not a Python file"),
        ("empty.py", "", r"has no get_config\(\)"),
        ("broken.py", "def get_config(:", "fails: SyntaxError"),
        ("other.py", "def get_config(): return {}", "gives no ConfigDict"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            load_config(str(tmp_path / name))


def test_configs_take_one_argument_with_a_default(configs):
    import importlib.util

    for file in configs.glob("*.py"):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (parameter,) = inspect.signature(module.get_config).parameters.values()
        assert parameter.default is not inspect.Parameter.empty
