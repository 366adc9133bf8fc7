"""`svit data shard`: what its options become, and what they refuse."""

import io
import json
import sys

import pytest
from PIL import Image

from data_pipeline.records.pictures import Resize
from data_pipeline.records.source import open_records
from svit_jax.cli import main


@pytest.fixture
def arguments(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, "PNG")
    (tmp_path / "1.png").write_bytes(file.getvalue())
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}]
    row = {"id": "a", "image": "1.png", "conversations": turns}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    paths = {"--llava": tmp_path / "rows.json", "--images": tmp_path, "--out": tmp_path / "out"}
    given = [str(part) for pair in paths.items() for part in pair]
    return ["data", "shard", *given, "--name", "toy"]


def test_pictures_are_resized_as_the_options_say(arguments, tmp_path, capsys):
    options = ["--resize", "8", "--image-mode", "crop", "--image-format", "jpeg", "--workers", "2"]
    assert main([*arguments, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 1
    source = open_records(tmp_path / "out")
    assert source.header.resize == Resize(8, "crop", "jpeg")
    with Image.open(io.BytesIO(source[0].images[0])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (8, 8))


@pytest.mark.parametrize(
    "options,problem",
    [
        (["--image-mode", "crop"], "belong to --resize"),
        (["--", "--direct_num_workers=2"], "give a --runner too"),
        (["--workers", "0"], "number of workers is 0"),
    ],
)
def test_options_that_go_with_nothing_are_refused(arguments, options, problem, capsys):
    assert main([*arguments, *options]) == 1
    assert problem in capsys.readouterr().err


def test_a_runner_without_beam_says_what_to_install(arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "data_pipeline.records.beam_pipeline", raising=False)
    assert main([*arguments, "--runner", "DirectRunner"]) == 1
    assert "pip install 'svit-jax[beam]'" in capsys.readouterr().err
