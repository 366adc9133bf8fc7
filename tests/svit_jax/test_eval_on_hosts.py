"""Two real processes share an evaluation's questions; each with a model on its own devices."""

import json
from pathlib import Path

import pytest
from one_eval_host import drawn
from several_processes import codes, started

import svit_jax
from svit_jax.cli import main
from svit_jax.evaluation.benchmark import NoPicture


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
