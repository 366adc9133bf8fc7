"""What a language model is asked: the task's instructions and the scene as text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from etils import epath

from data_pipeline.annotations.scene import Scene
from data_pipeline.common.boxes import format_box, normalise_box
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.generation.kinds import KINDS, REFERRING_QA

DETAIL_QUESTIONS = "detail_questions"
TEMPLATE_NAMES = (*KINDS, DETAIL_QUESTIONS)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """`system` holds the instructions, `user` the scene."""

    system: str
    user: str


def load_templates(folder: PathLike | None = None) -> dict[str, str]:
    """The prompt texts by name: one for each kind, and `detail_questions` (a question a line).

    A file `<name>.txt` in `folder` replaces the one that ships with the package. Raises UserError
    where the folder is absent, a file in it is empty, or a name is none of the known ones.
    """
    own = Path(__file__).parent / "prompts"
    templates = {name: (own / f"{name}.txt").read_text("utf-8") for name in TEMPLATE_NAMES}
    if folder is None:
        return templates
    given = epath.Path(folder)
    if not given.is_dir():
        raise UserError(f"prompt templates: there is no folder {given}; check the path.")
    files = sorted(path for path in given.iterdir() if path.name.endswith(".txt"))
    known = ", ".join(f"{name}.txt" for name in TEMPLATE_NAMES)
    if not files:
        raise UserError(
            f"prompt templates: {given} holds none of: {known}; add the ones to replace."
        )
    for path in files:
        if path.stem not in templates:
            raise UserError(
                f"prompt template {path} replaces nothing; rename it to one of: {known}."
            )
        text = path.read_text()
        if not text.strip():
            raise UserError(f"prompt template {path} is empty; write it, or remove the file.")
        templates[path.stem] = text
    return templates


def build_prompt(kind: str, scene: Scene, template_folder: PathLike | None = None) -> Prompt:
    """The prompt for one scene and one kind; templates in `template_folder` replace ours."""
    return compose_prompt(kind, scene, load_templates(template_folder))


def compose_prompt(kind: str, scene: Scene, templates: Mapping[str, str]) -> Prompt:
    """`build_prompt` with the templates already loaded."""
    return Prompt(templates[kind].strip(), scene_text(scene, region_boxes=kind == REFERRING_QA))


def scene_text(scene: Scene, region_boxes: bool) -> str:
    """The scene as the published three fields, a line for each item.

    Boxes are fractions of each axis. Regions carry boxes only if `region_boxes` says so: the
    published prompts mention them for the referring task alone.
    """

    def boxed(text: str, box: tuple[int, int, int, int]) -> str:
        return f"{text}: {format_box(normalise_box(box, scene.width, scene.height))}"

    lines = ["(1) captions:"]
    lines += [_one_line(caption) for caption in scene.captions]
    lines += ["(2) objects:"]
    lines += [boxed(_one_line(item.name), item.box) for item in scene.objects]
    lines += ["(3) regions:"]
    for region in scene.regions:
        phrase = _one_line(region.phrase)
        lines.append(boxed(phrase, region.box) if region_boxes else phrase)
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
