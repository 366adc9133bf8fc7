"""The prompts' layout and the templates that a user may replace."""

from pathlib import Path

import pytest

from data_pipeline.annotations.scene import PixelBox, Region, Scene, SceneObject
from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import KINDS, require_kinds
from data_pipeline.generation.prompt import build_prompt, load_templates

SCENE = Scene(
    1,
    "VG_100K/1.jpg",
    800,
    600,
    captions=("A street\nwith a clock.",),
    objects=(SceneObject(1, "clock", PixelBox(421, 91, 500, 430)),),
    regions=(Region("tall green clock", PixelBox(0, 0, 800, 600)),),
)


def test_the_scene_is_laid_out_in_three_fields() -> None:
    assert build_prompt("conversation", SCENE).user == (
        "(1) captions:\nA street with a clock.\n"
        "(2) objects:\nclock: [0.526, 0.152, 0.625, 0.717]\n"
        "(3) regions:\ntall green clock"
    )


def test_regions_carry_boxes_for_the_referring_task_alone() -> None:
    boxed = "tall green clock: [0.0, 0.0, 1.0, 1.0]"
    assert {kind for kind in KINDS if boxed in build_prompt(kind, SCENE).user} == {"referring_qa"}


def test_every_prompt_asks_for_its_format_and_hides_the_source() -> None:
    formats = {"conversation": "Topic:", "complex_reasoning": "Answer:", "referring_qa": "<st>"}
    for kind in KINDS:
        system = build_prompt(kind, SCENE).system
        assert formats.get(kind, "running text") in system
        assert "Don't say that you were given a description" in system


def test_a_folder_replaces_templates(tmp_path: Path) -> None:
    (tmp_path / "conversation.txt").write_text("Talk about it.\n")
    assert build_prompt("conversation", SCENE, tmp_path).system == "Talk about it."
    own = build_prompt("referring_qa", SCENE).system
    assert build_prompt("referring_qa", SCENE, tmp_path).system == own


def test_wrong_template_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        load_templates(tmp_path / "absent")
    with pytest.raises(UserError, match="holds none of"):
        load_templates(tmp_path)
    (tmp_path / "conversations.txt").write_text("x")
    with pytest.raises(UserError, match=r"conversations\.txt replaces nothing"):
        load_templates(tmp_path)
    (tmp_path / "conversations.txt").rename(tmp_path / "conversation.txt").write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        load_templates(tmp_path)


def test_kinds_are_checked_and_ordered() -> None:
    assert require_kinds(["referring_qa", "conversation"]) == ("conversation", "referring_qa")
    with pytest.raises(UserError, match="'chat'"):
        require_kinds(["chat"])
    with pytest.raises(UserError, match="no kind"):
        require_kinds([])
