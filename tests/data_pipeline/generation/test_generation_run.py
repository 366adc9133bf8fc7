"""The generation run: files, counts, interruption, limits."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import Scene, write_scenes
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.generation.generate import generate
from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.teacher import Request
from data_pipeline.generation.template_teacher import TemplateTeacher

KILLED_RUN = """
import os, signal, sys
from data_pipeline.generation.generate import generate
from data_pipeline.generation.template_teacher import TemplateTeacher

class Mortal(TemplateTeacher):
    answered = 0

    def respond(self, request):
        Mortal.answered += 1
        if Mortal.answered == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().respond(request)

generate(sys.argv[1], sys.argv[2], Mortal(), seed=3)
"""


class Scripted(TemplateTeacher):
    """Answers from a table by kind and counts how often it was asked."""

    def __init__(self, responses: dict[str, str]):
        super().__init__()
        self.responses = responses
        self.asked = 0

    def respond(self, request: Request) -> str:
        self.asked += 1
        if request.kind not in self.responses:
            raise BadRecordError("content_filter: no.")
        return self.responses[request.kind]


@pytest.fixture
def scenes_path(tmp_path: Path, shape_scenes: list[Scene]) -> Path:
    write_scenes(tmp_path / "scenes.jsonl", shape_scenes)
    return tmp_path / "scenes.jsonl"


@pytest.fixture
def one_scene(tmp_path: Path, shape_scenes: list[Scene]) -> Path:
    write_scenes(tmp_path / "one.jsonl", shape_scenes[:1])
    return tmp_path / "one.jsonl"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".json"}


def test_files_have_the_raw_form(scenes_path: Path, tmp_path: Path) -> None:
    report = generate(scenes_path, tmp_path / "out", TemplateTeacher())
    assert report.scenes == 60 and report.rejections == {}
    for kind in KINDS:
        rows = json.loads((tmp_path / "out" / f"{kind}.json").read_text())
        assert [row["image_id"] for row in rows] == list(range(1, 61))
        dialogues = [c["content"] for row in rows for c in row["conversations"]]
        for turns in dialogues:
            assert [t["from"] for t in turns] == ["user", "gpt"] * (len(turns) // 2)
        assert report.kinds[kind].dialogues == len(dialogues)
        assert report.kinds[kind].question_answers == sum(len(t) // 2 for t in dialogues)
    description = json.loads((tmp_path / "out" / "detail_description.json").read_text())
    questions = {row["conversations"][0]["content"][0]["value"] for row in description}
    assert len(questions) > 6
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["kinds"]["conversation"]["responses"] == 60


def test_a_killed_run_goes_on_and_ends_the_same(scenes_path: Path, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED_RUN, str(scenes_path), str(broken)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    # Cut the last line, as a crash of the machine might.
    journal = broken / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert not (broken / "conversation.json").exists()
    generate(scenes_path, broken, TemplateTeacher(), seed=3)
    generate(scenes_path, whole, TemplateTeacher(), seed=3)
    assert contents(broken) == contents(whole)


def test_nothing_is_asked_twice(one_scene: Path, tmp_path: Path) -> None:
    teacher = Scripted({"conversation": "Topic: x\nUser: Why?\nGPT: So.\nUser: And?"})
    for _ in range(2):
        report = generate(one_scene, tmp_path / "out", teacher, kinds=["conversation"])
    assert teacher.asked == 1
    assert report.rejections == {"unpaired_turn": 1}
    generate(one_scene, tmp_path / "out", teacher)
    assert teacher.asked == 4


def test_a_notebook_that_runs_a_loop_can_generate(one_scene: Path, tmp_path: Path) -> None:
    async def cell() -> int:
        return generate(one_scene, tmp_path / "out", TemplateTeacher()).scenes

    assert asyncio.run(cell()) == 1


def test_rejections_are_listed_and_limited(one_scene: Path, tmp_path: Path) -> None:
    teacher = Scripted({"conversation": "no", "complex_reasoning": "I'm sorry, but no."})
    report = generate(one_scene, tmp_path / "out", teacher)
    assert report.rejections == {"no_pairs": 1, "refusal": 1, "content_filter": 2}
    assert report.kinds["referring_qa"].rejected == 1
    assert (tmp_path / "out" / "conversation.json").read_text() == "[]\n"
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert [row["id"] for row in rows] == [f"1/{kind}" for kind in KINDS]
    with pytest.raises(UserError, match="more than the 2 allowed"):
        generate(one_scene, tmp_path / "strict", teacher, max_bad=2)
    assert not (tmp_path / "strict" / "conversation.json").exists()


def test_a_journal_of_other_inputs_is_refused(
    one_scene: Path, scenes_path: Path, tmp_path: Path
) -> None:
    generate(one_scene, tmp_path / "out", TemplateTeacher())
    for path, seed, teacher in (
        (one_scene, 1, TemplateTeacher()),
        (scenes_path, 0, TemplateTeacher()),
        (one_scene, 0, TemplateTeacher({"red star"})),
    ):
        with pytest.raises(UserError, match="belongs to other inputs"):
            generate(path, tmp_path / "out", teacher, seed=seed)


def test_bad_inputs_are_explained(tmp_path: Path, shape_scenes: list[Scene]) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        generate(tmp_path / "absent.jsonl", tmp_path / "out", TemplateTeacher())
    write_scenes(tmp_path / "twice.jsonl", [shape_scenes[0], shape_scenes[0]])
    with pytest.raises(UserError, match="image 1 twice"):
        generate(tmp_path / "twice.jsonl", tmp_path / "out", TemplateTeacher())
