"""`svit data annotate` by its flags: a user's own pictures, and flags that don't go together."""

import json

import pytest
from PIL import Image

from svit_jax.cli import main


@pytest.fixture
def own(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "1.jpg")
    box = [1, 2, 30, 35]
    twice = [{"name": "cup", "box": box}, {"name": "cup", "box": box}]
    row = {"image": "1.jpg", "captions": ["A cup."], "objects": twice}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n" + '{"image": "2.jpg"}\n')
    return tmp_path


def annotate(folder, *flags) -> int:
    return main(["data", "annotate", "--out", str(folder / "scenes.jsonl"), *map(str, flags)])


def test_own_pictures(own, capsys):
    flags = ("--own", own / "own.jsonl", "--images", own, "--merge-duplicates", "0.9", "--json")
    assert annotate(own, *flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["scenes"], report["objects"], report["captions"], report["merged"]) == (
        1,
        1,
        1,
        1,
    )
    assert report["rejected"] == {"missing picture": 1}
    (scene,) = map(json.loads, (own / "scenes.jsonl").read_text().splitlines())
    assert scene["objects"][0]["box"] == [1, 2, 30, 35]

    assert annotate(own, *flags, "--max-bad", "0") == 1
    assert "more than the 0 allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--own", "own.jsonl"), "--own needs --images FOLDER"),
        (
            ("--own", "own.jsonl", "--images", ".", "--coco", "c.json"),
            "--coco was given with --own",
        ),
        (("--vg", ".", "--images", "."), "--images was given with --vg"),
        (("--own", "own.jsonl", "--images", ".", "--merge-duplicates", "7"), "overlap of 7.0"),
    ],
)
def test_flags_that_do_not_go_together_are_explained(own, monkeypatch, capsys, flags, told):
    monkeypatch.chdir(own)
    assert annotate(own, *flags) == 1
    assert told in capsys.readouterr().err
    assert not (own / "scenes.jsonl").exists()


def test_there_is_one_source(own, capsys):
    with pytest.raises(SystemExit) as exit:
        annotate(own, "--vg", ".", "--own", "own.jsonl")
    assert exit.value.code == 2
