"""The notebook's code cells, one after another, as a user runs them: from pictures to answers."""

import json
import re
from pathlib import Path

import pytest

from data_pipeline.toy_world.generate import generate_world
from svit_jax.models.presets import PRESETS
from svit_jax.recipes import VARIANTS

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "lora_on_your_pictures.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def tagged(tag: str) -> dict:
    (found,) = [cell for cell in CODE if tag in cell["metadata"].get("tags", ())]
    return found


def test_it_is_stored_without_outputs():
    for cell in CODE:
        assert cell["outputs"] == [] and cell["execution_count"] is None
        if cell is not tagged("install"):
            compile("".join(cell["source"]), cell["id"], "exec")


def test_the_hardware_that_it_names_are_configs():
    text = "".join("".join(cell["source"]) for cell in CELLS)
    named = re.findall(r"^\| `(\w+)` \| (?:one GPU|a v5e|a tiny)", text, re.M)
    assert len(named) == 4 and set(named) <= VARIANTS.keys() | PRESETS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("annotated", [True, False])
def test_its_cells_run_on_a_few_pictures(tmp_path, monkeypatch, capfd, annotated):
    generate_world(tmp_path / "world", train_scenes=4, held_out_scenes=1, novel_scenes=0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    lines = []
    for file in sorted((tmp_path / "world" / "train" / "images").rglob("*.jpg")):
        name = f"a_red_circle_{file.name}"
        file.rename(pictures / name)
        box = {"name": "circle", "box": [2, 2, 20, 20], "attributes": ["red"]}
        lines.append({"image": name, "captions": ["A red circle."], "objects": [box]})
    if annotated:
        written = "".join(json.dumps(line) + "\n" for line in lines)
        (pictures / "annotations.jsonl").write_text(written)
    monkeypatch.chdir(NOTEBOOK.parent)
    settings = {
        "HARDWARE": "smoke",
        "PICTURES": str(pictures),
        "WORK": str(tmp_path / "work"),
        "LLAVA": "",
        "CLIP": "",
        "STEPS": 3,
        "QUESTION": "Is there a red circle?",
    }
    asked = re.findall(r"\b([A-Z]+)(?: =|, )", "".join(tagged("parameters")["source"]))
    assert asked == list(settings)
    names = dict(settings)
    for cell in CODE:
        if not {"install", "parameters"} & set(cell["metadata"].get("tags", ())):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert [row["step"] for row in names["logged"]] == [1, 2, 3]
    assert isinstance(names["answer"], str)
    assert (tmp_path / "work" / "adapter" / "adapter_config.json").exists()
    assert "fit to train" in capfd.readouterr().out
