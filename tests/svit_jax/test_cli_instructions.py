"""`svit data clean`, `convert`, `mix` and `sources`: from the release to a checked mixture."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from svit_jax.cli import main

BOX, BOX_ON_SQUARE = "[0.526, 0.152, 0.625, 0.717]", "[0.526, 0.239, 0.625, 0.662]"


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {"content": [{"from": "user", "value": question}, {"from": "gpt", "value": answer}]}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    (tmp_path / "svit").mkdir()
    good = conversation(f"Where is the <st>clock<ed> {BOX}?", f"The <st>clock<ed> {BOX} hangs.")
    bad = conversation("Where is the <st>clock<ed>?", "At <st>clock<ed> [0.1, 0.2].")
    rows = [{"image_id": n, "conversations": [good, bad]} for n in (1, 8)]
    (tmp_path / "svit/referring_qa.json").write_text(json.dumps(rows))
    entries = [
        {"image_id": n, "url": f"a/VG_100K/{n}.jpg", "width": 800, "height": 600} for n in (1, 8)
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(entries))
    (tmp_path / "test_ids.txt").write_text("8\n")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ninputs: {core: {file: core.json}}\n"
        "parts: [{name: core, input: core, rows: 1, folder: vg}]\n"
    )
    return tmp_path


def svit(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert main(["data", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_the_release_to_a_mixture(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--image-data", release / "image_data.json")
    raw, cleaned, core = release / "svit", release / "cleaned", release / "core.json"
    exclude = ("--exclude-ids", release / "test_ids.txt")
    report = svit(capsys, "clean", "--raw", raw, "--out", cleaned, *sizes, *exclude)
    assert report["kept"] == {"referring_qa": 1} and report["excluded"]["dialogues"] == 2
    assert report["dropped"] == {"malformed_box": 1}

    kinds = ("--kinds", "referring_qa")
    paths = (*sizes, "--prefix", "vg/")
    report = svit(capsys, "convert", "--raw", cleaned, "--out", core, *paths, *kinds)
    assert report == {"rows": {"referring_qa": 1}, "rejections": {}}
    assert BOX_ON_SQUARE in core.read_text()

    report = svit(capsys, "convert", "--reverse", core, "--out", release / "back", *paths)
    assert report["dialogues"]["referring_qa"] == 1
    assert BOX in (release / "back/referring_qa.json").read_text()

    mixed = release / "mix.json"
    report = svit(capsys, "mix", "--mixture", release / "mine.yaml", "--out", mixed)
    assert report["rows"] == 1 and report["folders"] == {"vg": 1}

    look = ("data", "check", "--sources", "--images", str(release / "images"), "--rows", str(mixed))
    assert main([*look]) == 1
    assert "vg/VG_100K (1 of 1 pictures)" in capsys.readouterr().err
    (release / "images/vg/VG_100K").mkdir(parents=True)
    Image.new("RGB", (80, 60)).save(release / "images/vg/VG_100K/1.jpg")
    assert main([*look, "--decode"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("convert --raw svit --out x.json", "--image-data"),
        ("convert --reverse x.json --out back", "--image-data"),
        ("mix --out mix.json", "lacks svit_core"),
        ("mix --out mix.json --input core", "is not NAME=FILE"),
        ("clean --raw svit --out cleaned --drop short", "choose from: short_dialogue"),
    ],
)
def test_mistakes_are_one_sentence(
    release: Path,
    arguments: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(release)
    assert main(["data", *arguments.split()]) == 1
    assert complaint in capsys.readouterr().err
