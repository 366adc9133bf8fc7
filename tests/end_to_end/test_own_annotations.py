"""From a folder of Visual Genome files to training steps, by the commands that a user types."""

import json
import math
import shutil
from pathlib import Path

import pytest

from svit_jax.cli import main

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "svit_v1_5_7b_finetune.py"
SMALL = ("--data.batch_size=8", "--data.row_length=512", "--train.log_every=1")
CLOCK_OF_PICTURE = "[0.526, 0.152, 0.625, 0.717]"
CLOCK_ON_SQUARE = "[0.526, 0.239, 0.625, 0.662]"


def svit(*arguments) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def refused(capsys, *arguments) -> str:
    """The one sentence that the command ends with."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("svit: ")]
    assert said.rstrip().endswith(sentence)
    return sentence


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prepare(visual_genome: Path, folder: Path) -> Path:
    """scenes, stand-in pictures, raw instructions and LLaVA rows in `folder`."""
    scenes = folder / "scenes.jsonl"
    svit(
        *("data", "annotate", "--vg", visual_genome),
        *("--out", scenes, "--stand-ins", folder / "images"),
    )
    svit("data", "generate", "--scenes", scenes, "--out", folder / "raw")
    svit(
        *("data", "convert", "--raw", folder / "raw"),
        *("--scenes", scenes, "--out", folder / "instructions.json"),
    )
    return folder


def shard_command(folder: Path, out: Path, *more) -> tuple:
    return (
        *("data", "shard", "--llava", folder / "instructions.json"),
        *("--images", folder / "images", "--out", out, "--name", "own", *more),
    )


def train_command(folder: Path, workdir, *more) -> tuple:
    return (
        *("train", "--config", f"{CONFIG}:tiny", "--workdir", workdir),
        *(f"--data.train={folder / 'dataset'}", f"--data.tokenizer={folder / 'tokenizer.model'}"),
        *(*SMALL, *more),
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A toy world's annotations, prepared; its own pictures are left aside for stand-ins."""
    folder = tmp_path_factory.mktemp("toy")
    world = folder / "world"
    svit(
        *("data", "toy", "--out", world),
        *("--scenes", "12", "--held-out", "1", "--novel", "0"),
    )
    return prepare(world / "train" / "visual_genome", folder)


def finish(folder: Path) -> None:
    """Shards, tokenizer and three training steps; the workdir is relative, as users type it."""
    svit(*shard_command(folder, folder / "dataset"))
    svit(
        *("data", "tokenizer", "--data", folder / "dataset"),
        *("--vocab", "400", "--out", folder / "tokenizer.model"),
    )
    svit(*train_command(folder, "run", "--train.steps=3"))
    logged = rows_of(Path("run") / "metrics.jsonl")
    assert [row["step"] for row in logged] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) and row["target_tokens"] > 0 for row in logged)
    assert (Path("run") / "checkpoints" / "3").is_dir()


def dialogues_in(folder: Path) -> int:
    return len(json.loads((folder / "instructions.json").read_text()))


def test_toy_annotations_to_training_steps(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finish(toy)
    info = json.loads((toy / "dataset" / "dataset_info.json").read_text())
    assert [split["shardLengths"] for split in info["splits"]] == [["12"]]

    # A finished run is left alone, a workdir of other settings is refused.
    svit(*train_command(toy, "run", "--train.steps=3"))
    said = refused(capsys, *train_command(toy, "run", "--train.steps=4"))
    assert "workdir run belongs to another run" in said and "train.steps" in said


def test_real_annotations_to_training_steps(real_data, tmp_path, monkeypatch):
    folder = prepare(real_data / "visual_genome_sample", tmp_path)
    raw = (folder / "raw" / "referring_qa.json").read_text()
    assert f"clock<ed> {CLOCK_OF_PICTURE}" in raw and CLOCK_ON_SQUARE not in raw
    converted = (folder / "instructions.json").read_text()
    assert f"clock {CLOCK_ON_SQUARE}" in converted and CLOCK_OF_PICTURE not in converted

    monkeypatch.chdir(tmp_path)
    finish(folder)
    info = json.loads((folder / "dataset" / "dataset_info.json").read_text())
    assert [split["shardLengths"] for split in info["splits"]] == [["5"]]


def spoil(toy: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder, for a test to spoil."""
    folder = tmp_path / "spoilt"
    shutil.copytree(toy, folder, ignore=shutil.ignore_patterns("world", "dataset", "run"))
    return folder


def test_missing_and_truncated_pictures_are_quarantined_and_counted(toy, tmp_path, capsys):
    folder = spoil(toy, tmp_path)
    missing, cut, *_ = sorted((folder / "images").rglob("*.jpg"))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-400])

    svit(*shard_command(folder, folder / "out", "--json"))
    report = json.loads(capsys.readouterr().out)
    listed = rows_of(folder / "out" / "quarantine-train.jsonl")
    by_picture = {path.name: 0 for path in (missing, cut)}
    for row in listed:
        by_picture[Path(row["image"]).name] += 1
        kind = "missing picture" if row["image"].endswith(missing.name) else "broken picture"
        assert row["reason"].startswith(kind)
    # Nothing is lost: what is not written is listed, each dialogue by itself.
    assert report["records"] == 10
    assert report["dialogues"] + report["rejected"] == dialogues_in(folder)
    assert report["rejected"] == len(listed) == sum(by_picture.values())
    assert min(by_picture.values()) > 0

    said = refused(capsys, *shard_command(folder, folder / "strict", "--max-bad", "0"))
    assert "more than the 0 allowed" in said and missing.name in said
    assert not (folder / "strict" / "dataset_info.json").exists()


@pytest.mark.parametrize("job", ["annotate", "convert", "shard"])
def test_malformed_json_is_named(toy, tmp_path, capsys, job):
    folder = spoil(toy, tmp_path)
    shutil.copytree(toy / "world" / "train" / "visual_genome", folder / "vg")
    victim, command = {
        "annotate": (
            folder / "vg" / "objects.json",
            ("data", "annotate", "--vg", folder / "vg", "--out", folder / "again.jsonl"),
        ),
        "convert": (
            folder / "raw" / "conversation.json",
            (
                *("data", "convert", "--raw", folder / "raw"),
                *("--scenes", folder / "scenes.jsonl", "--out", folder / "again.json"),
            ),
        ),
        "shard": (folder / "instructions.json", shard_command(folder, folder / "again")),
    }[job]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) * 2 // 3])

    said = refused(capsys, *command)
    assert str(victim) in said and "may be cut off" in said
    assert not list(folder.glob("again*")), "half an output was left behind"


def test_unknown_config_key_names_the_nearest(toy, tmp_path, capsys):
    said = refused(capsys, *train_command(toy, tmp_path / "run", "--optim.learning_rat=1"))
    assert "no key 'optim.learning_rat'" in said and "'optim.learning_rate'" in said
    assert not (tmp_path / "run").exists()
