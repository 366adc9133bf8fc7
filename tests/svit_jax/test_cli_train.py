"""`svit train` with benchmarks while it trains, and its flags."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_bucket import use_fake_bucket
from small_run import SMALL_RUN

from svit_jax.api import load
from svit_jax.cli import main
from svit_jax.cli.train import benchmark_hook
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import read_questions, subset


def arguments(configs, tiny_data, workdir, *more: str) -> list[str]:
    return [
        *("train", "--config", f"{configs}/svit_v1_5_7b_finetune.py:tiny"),
        *("--workdir", str(workdir), *(f"--{o}" for o in SMALL_RUN)),
        *(f"--data.train={tiny_data.dataset}", f"--data.tokenizer={tiny_data.tokenizer}", *more),
    ]


def test_benchmarks_while_it_trains_are_those_of_the_checkpoint(
    configs, tiny_data, tmp_path, capsys
):
    """The last evaluation's answers against those of the stored checkpoint, by the public API."""
    held_out = tiny_data.dataset.parent / "world" / "held_out"
    data, images = held_out / "benchmarks", held_out / "images"
    flags = (
        *("--eval-benchmark", "vqav2", "--eval-data", str(data), "--eval-images", str(images)),
        *("--eval-limit", "3", "--eval-max-new-tokens", "3", "--train.eval_every=4", "--json"),
    )
    assert main(arguments(configs, tiny_data, tmp_path, *flags)) == 0
    found = json.loads(capsys.readouterr().out)
    assert {path.name for path in (tmp_path / "evaluations").iterdir()} == {"4", "6"}

    questions = read_questions("vqav2", data, images, 3)
    assert 0 < len(questions) <= 3
    pairs = [(question.image, question.text) for question in questions]
    answers = list(load(tmp_path, batch_size=8).answer_all(pairs, max_new_tokens=3))
    ids = [question.question_id for question in questions]
    score = BENCHMARKS["vqav2"].score(questions, dict(zip(ids, answers, strict=True)))
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    (last,) = [row for row in logged if row["step"] == 6 and "vqav2/accuracy" in row]
    assert last == {"step": 6, **{f"vqav2/{name}": value for name, value in score.items()}}
    journal = (tmp_path / "evaluations" / "6" / "vqav2.answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in journal] == answers
    assert found["metrics"]["vqav2/accuracy"] == score["accuracy"]
    assert found["goodput"]["seconds"]["evaluation"] > 0


def test_benchmarks_are_written_into_a_bucket(trained, tiny_data, tmp_path, monkeypatch):
    use_fake_bucket(monkeypatch, tmp_path / "objects")
    bucket = tmp_path / "objects" / "b" / "run"
    bucket.mkdir(parents=True)
    for name in ("model.json", "tokenizer.model"):
        shutil.copy(trained.workdir / name, bucket)
    stale = bucket / "evaluations" / "6" / "stale.json"
    stale.parent.mkdir(parents=True)
    stale.touch()
    held_out = tiny_data.dataset.parent / "world" / "held_out"
    places = str(held_out / "benchmarks"), str(held_out / "images")
    hook = benchmark_hook(trained.config, "gs://b/run", ["pope"], *places, 3, 3)
    model = load(trained.workdir)
    found = hook(6, SimpleNamespace(parameters=lambda: model.engine.parameters))
    out = bucket / "evaluations" / "6"
    assert json.loads((out / "pope.scores.json").read_text()) == {
        name.removeprefix("pope/"): value for name, value in found.items()
    }
    questions = read_questions("pope", *places, 3)
    asked = [(question.image, question.text) for question in questions]
    answers = [json.loads(line) for line in (out / "pope.answers.jsonl").read_text().splitlines()]
    assert [row["text"] for row in answers] == list(model.answer_all(asked, 3))
    assert (out / "pope.upload").is_dir() and not stale.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("vqav2",), "--eval-benchmark wants --eval-data and --eval-images as well."),
        (("vkav2", "--eval-data", ".", "--eval-images", "."), "did you mean vqav2?"),
    ],
)
def test_wrong_benchmark_flags_are_one_sentence(
    flags, sentence, configs, tiny_data, tmp_path, capsys
):
    given = arguments(configs, tiny_data, tmp_path / "run", "--eval-benchmark", *flags)
    assert main(given) == 1
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("window", ["10", "0:3", "5:4", "a:b"])
def test_a_wrong_profile_window_is_wrong_usage(window, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config", "c.py", "--workdir", "w", "--profile-steps", window])
    assert stopped.value.code == 2
    assert f"'{window}' is not FIRST:LAST" in capsys.readouterr().err


def test_a_subset_is_spread_over_the_pictures_and_keeps_each_whole():
    """12 pictures with two questions each, in the order of the pictures."""
    pictures = [Path(f"{number}.jpg") for number in range(12) for _ in range(2)]
    questions = [
        Question(str(place), "?", picture, None, "") for place, picture in enumerate(pictures)
    ]
    chosen = subset(questions, 7)
    assert [q.question_id for q in chosen] == ["0", "1", "8", "9", "16", "17"]
    assert subset(questions, 0) == subset(questions, 24) == questions
    assert len(subset(questions, 1)) == 2
