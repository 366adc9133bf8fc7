"""Two real processes share an evaluation's questions; each with a model on its own devices."""

import json
from pathlib import Path

import pytest
from one_eval_host import drawn
from several_processes import codes, started
from small_run import SMALL_RUN

import svit_jax
from svit_jax.cli import main
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.training.telemetry import read_metrics


@pytest.mark.slow
def test_two_hosts_answer_as_one(trained, tiny_data, tmp_path):
    picture = sorted(tiny_data.pictures.rglob("*.jpg"))[0]
    script = str(Path(__file__).with_name("one_eval_host.py"))
    with started(2, [script, str(tmp_path), str(trained.workdir), str(picture)], tmp_path) as job:
        assert codes(job) == [0, 0], (tmp_path / "1.log").read_text()[-2000:]
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    questions = [(picture, f"What is number {n}?") for n in range(5)]
    questions += [(None, "Is it blank?"), (NoPicture.TEXT_ALONE, "What is red?")]
    assistant = svit_jax.load(trained.workdir)
    expected = [
        answer
        for asked in questions
        for answer in assistant.answer_all([asked], 6, drawn(asked[1]))
    ]
    assert len(set(expected)) > 4
    assert first["answers"] == expected and second["answers"] is None
    texts = [text for _, text in questions]
    assert (first["own"], second["own"]) == (texts[::2], texts[1::2])
    # The second's failure is the first's to tell, and both went on.
    assert first["failure"] == "a host can't" and second["failure"] is None
    # In step both are asked everything and shown the bytes, and both end alike.
    assert first["across"] == second["across"]
    found, failed, missing, own = first["across"]
    assert found == {"0": 1.0, "1": 2.0, "2": 3.0, "3": 4.0}
    assert failed == "no host can" and "there is no file" in missing and "none.jpg" in missing
    size = picture.stat().st_size
    good = [["a", size], ["bb", -1], ["ccc", -1]]
    assert own == [*good, ["dddd", -1], *good, ["the bad one", -1], *good[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("mesh.fsdp=2",), ("mesh.fsdp=1", "mesh.tensor=2")])
def test_benchmarks_of_a_training_on_two_hosts_are_those_of_one(configs, tiny_data, tmp_path, mesh):
    held_out = tiny_data.pictures.parents[1] / "held_out"

    def arguments(workdir: Path, *overrides: str) -> list[str]:
        data = f"data.train={tiny_data.dataset}", f"data.tokenizer={tiny_data.tokenizer}"
        keys = [f"--{key}" for key in (*data, *SMALL_RUN, "train.eval_every=4", *overrides)]
        return [
            *("train", "--config", f"{configs / 'svit_v1_5_7b_finetune.py'}:tiny", *keys),
            *("--workdir", str(workdir), "--eval-benchmark", "gqa", "pope", "--eval-limit", "12"),
            *("--eval-data", str(held_out / "benchmarks"), "--eval-max-new-tokens", "4"),
            *("--eval-images", str(held_out / "images")),
        ]

    assert main(arguments(tmp_path / "one")) == 0
    command = ["-m", "svit_jax.cli", *arguments(tmp_path / "two", *mesh)]
    with started(2, command, tmp_path / "logs") as job:
        assert codes(job) == [0, 0], (tmp_path / "logs" / "0.log").read_text()[-2000:]
    one, two = (read_metrics(tmp_path / workdir) for workdir in ("one", "two"))
    scored = [row for row in one if "gqa/accuracy" in row]
    assert [row["step"] for row in scored] == [4, 6] and "pope/f1" in scored[0]
    assert [row for row in two if "gqa/accuracy" in row] == scored
    for name in ("4/gqa.answers.jsonl", "6/pope.answers.jsonl", "6/gqa.scores.json"):
        ours, theirs = (tmp_path / run / "evaluations" / name for run in ("two", "one"))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_svit_eval_on_two_hosts_writes_what_one_writes(trained, tiny_data, tmp_path):
    held_out = tiny_data.pictures.parents[1] / "held_out"

    def arguments(out: Path) -> list[str]:
        return [
            *("eval", "--checkpoint", str(trained.workdir), "--benchmark", "gqa", "pope"),
            *("--data", str(held_out / "benchmarks"), "--images", str(held_out / "images")),
            *("--out", str(out), "--max-new-tokens", "8", "--batch-size", "4"),
        ]

    assert main([*arguments(tmp_path / "one"), "--mesh", "fsdp=4,tensor=2"]) == 0
    command = ["-m", "svit_jax.cli", *arguments(tmp_path / "two")]
    with started(2, command, tmp_path / "logs") as job:
        assert codes(job) == [0, 0], (tmp_path / "logs" / "0.log").read_text()[-2000:]
    for name in ("gqa.answers.jsonl", "pope.answers.jsonl", "gqa.scores.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert "gqa:" not in (tmp_path / "logs" / "1.log").read_text()
