"""`svit train` killed with SIGKILL at random moments and restarted ends as if never interrupted."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.corpus import training_texts
from data_pipeline.text.tokenizer import train_tokenizer
from data_pipeline.toy_world.generate import generate_world

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "svit_v1_5_7b_finetune.py"
KILLS, STEPS = 5, 120
SETTINGS = (
    f"--train.steps={STEPS}",
    *("--train.log_every=1", "--train.loss_chunk=32", "--checkpoint.every=4"),
    *("--data.batch_size=4", "--data.row_length=128", "--data.pictures_per_row=2"),
    *("--model.compute.dtype=float32", "--optim.learning_rate=1e-3"),
)


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("chaos_data")
    generate_world(root / "world", train_scenes=8, held_out_scenes=1, novel_scenes=0)
    split = root / "world" / "train"
    vqa = split / "vqa" / "questions.json", split / "vqa" / "annotations.json"
    convert_vqa(*vqa, root / "rows.json", pairs_per_dialogue=2)
    write_dataset([root / "rows.json"], split / "images", root / "data", "tiny")
    dialogues = [d for entry in open_records(root / "data").entries for d in entry.dialogues]
    train_tokenizer(training_texts(dialogues), root / "tokenizer.model", 400)
    data = f"--data.train={root / 'data'}", f"--data.tokenizer={root / 'tokenizer.model'}"
    svit = [sys.executable, "-m", "svit_jax.cli", "train", "--config", f"{CONFIG}:tiny"]
    return [*svit, *data, *SETTINGS]


def start(command: list[str], workdir: Path) -> subprocess.Popen:
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen([*command, "--workdir", str(workdir)], stdout=log, stderr=log)


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    with ocp.PyTreeCheckpointer() as reader:
        nested = reader.restore(workdir / "checkpoints" / str(STEPS) / "parameters")
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(nested, sep="/").items()}


def logged(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Returns when the run has logged the step, or has ended."""
    log = workdir / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_random_moments_ends_as_if_never_interrupted(command, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(command, whole).wait() == 0

    # One kill while the run starts, the others some way into steps and saves.
    moments = random.Random("chaos/0")
    steps = [0, *sorted(moments.sample(range(2, STEPS - 20), KILLS - 1))]
    for step in steps:
        process = start(command, killed)
        if step:
            wait_for_step(process, killed, step)
        time.sleep(moments.uniform(0, 0.3 if step else 3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(command, killed).wait() == 0

    assert [row["step"] for row in logged(whole)] == list(range(1, STEPS + 1))
    assert logged(killed) == logged(whole)
    ours, theirs = parameters(killed), parameters(whole)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
