"""`svit data generate`: what stands in place of asking, and wrong usage."""

import json
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import PixelBox, Region, Scene, SceneObject, write_scenes
from svit_jax.cli import main


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    box = PixelBox(1, 2, 30, 40)
    scene = Scene(1, "VG_100K/1.jpg", 96, 72, objects=(SceneObject(1, "star", box),))
    more = Scene(2, "VG_100K/2.jpg", 96, 72, regions=(Region("a red star", box),))
    write_scenes(tmp_path / "scenes.jsonl", [scene, more])
    files = ["--scenes", str(tmp_path / "scenes.jsonl"), "--out", str(tmp_path / "out")]
    return ["data", "generate", *files, "--teacher", "openai"]


def test_a_dry_run_tells_calls_tokens_and_price(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command += ["--model", "m", "--dry-run", "--max-answer-tokens", "1000", "--kinds"]
    command += ["conversation", "referring_qa", "--price-input", "0", "--price-output", "5"]
    assert main(command) == 0
    line = capsys.readouterr().out
    assert line.startswith("4 calls (0 are answered)") and "at most 4000 output tokens" in line
    assert line.endswith("a cost of at most 0.02\n")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost_at_most"] == pytest.approx(4 * 1000 * 5e-6)


def test_batch_files_go_out_and_come_back(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command += ["--model", "m", "--kinds", "detail_description"]
    assert main([*command, "--write-batch", str(tmp_path / "batch"), "--seed", "3"]) == 0
    written = [json.loads(line) for line in (tmp_path / "batch/requests-00001.jsonl").open()]
    assert len({row["body"].pop("seed") for row in written}) == 2
    message = {"content": "A red star on a wall."}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    row = {"custom_id": written[0]["custom_id"], "response": {"status_code": 200, "body": body}}
    (tmp_path / "result.jsonl").write_text(json.dumps(row) + "\n")
    command += ["--seed", "3"]
    assert main([*command, "--read-batch", str(tmp_path / "result.jsonl")]) == 0
    assert "1 answers read, 0 failed, 1 requests are open" in capsys.readouterr().out
    assert main([*command, "--assemble"]) == 0
    assert "rejected: 0, unanswered: 1" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "detail_description.json").read_text())
    assert rows[0]["conversations"][0]["content"][1]["value"] == "A red star on a wall."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--model NAME"),
        (["--model", "m", "--max-cost", "5"], "needs prices"),
        (["--model", "m", "--price-input", "5"], "prices come in two"),
        (["--model", "m", "--concurrency", "0"], "concurrency is 0"),
        (["--model", "m", "--key-variable", "NOT_SET"], "NOT_SET, which is not set"),
    ],
)
def test_wrong_usage_is_explained(
    options: list[str], words: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *options]) == 1
    assert words in capsys.readouterr().err
