"""A small dataset with its tokenizer, runs over it, and one finished run that many tests read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import SMALL, SMALL_RUN
from stored_shapes import STORED_SHAPES

from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.corpus import training_texts
from data_pipeline.text.tokenizer import train_tokenizer
from data_pipeline.toy_world.generate import generate_world
from svit_jax.config import load_config, run_config
from svit_jax.models.svit import SvitConfig
from svit_jax.training.loop import RunResult, train
from svit_jax.training.settings import RunConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VOCABULARY = 400


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """The same small programs are compiled by many tests: once is enough."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def configs() -> Path:
    return CONFIGS


@dataclasses.dataclass(frozen=True)
class StoredReference:
    """What transformers computed of a small random LLaVA: tests/parity/make_fixtures.py."""

    config: SvitConfig
    parameters: dict[str, jax.Array]
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session", params=["multi_head", "grouped"])
def stored_reference(request) -> StoredReference:
    file = Path(__file__).resolve().parents[1] / "fixtures" / f"llava_{request.param}.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    start = "weights/"
    weights = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
    parameters = {path: jax.numpy.asarray(a, "float32") for path, a in weights.items()}
    return StoredReference(STORED_SHAPES[request.param], parameters, arrays)


@dataclasses.dataclass(frozen=True)
class TinyData:
    dataset: Path
    tokenizer: Path
    pictures: Path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> TinyData:
    root = tmp_path_factory.mktemp("tiny_data")
    generate_world(root / "world", train_scenes=8, held_out_scenes=1, novel_scenes=0)
    split = root / "world" / "train"
    vqa = split / "vqa" / "questions.json", split / "vqa" / "annotations.json"
    convert_vqa(*vqa, root / "rows.json", pairs_per_dialogue=2)
    write_dataset([root / "rows.json"], split / "images", root / "data", "tiny")
    dialogues = [d for entry in open_records(root / "data").entries for d in entry.dialogues]
    train_tokenizer(training_texts(dialogues), root / "tokenizer.model", VOCABULARY)
    return TinyData(root / "data", root / "tokenizer.model", split / "images")


MakeRun = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def make_run(tiny_data: TinyData) -> MakeRun:
    """A published config in size "tiny" over the tiny data: make_run("finetune", "optim.b1=0")."""

    def make(stage: str, *overrides: str) -> RunConfig:
        data = f"data.train={tiny_data.dataset}", f"data.tokenizer={tiny_data.tokenizer}"
        spec = f"{CONFIGS / f'svit_v1_5_7b_{stage}.py'}:tiny"
        return run_config(load_config(spec, [*data, *SMALL, *overrides]))

    return make


@dataclasses.dataclass(frozen=True)
class Trained:
    workdir: Path
    config: RunConfig
    result: RunResult


@pytest.fixture(scope="session")
def trained(make_run: MakeRun, tmp_path_factory) -> Trained:
    """Six uninterrupted steps of stage 2 at a rate that shows, the projector at one of its own."""
    config = make_run("finetune", *SMALL_RUN)
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    return Trained(workdir, config, train(config, workdir))
