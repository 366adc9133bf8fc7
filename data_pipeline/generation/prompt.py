"""What a language model is asked: the task's instructions and the scene as text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from etils import epath

from data_pipeline.annotations.scene import PixelBox, Scene
from data_pipeline.common.boxes import format_box, normalise_box
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.endpoint.token_estimate import most_tokens
from data_pipeline.generation.kinds import KINDS, REFERRING_QA
from data_pipeline.generation.token_budget import Line, fit_lines, fit_start

DETAIL_QUESTIONS = "detail_questions"
TEMPLATE_NAMES = (*KINDS, DETAIL_QUESTIONS)

PROMPT_TOKENS = 16_384
"""Room for every picture of Visual Genome that we have seen: one of 262 regions takes 11,400."""

_HEADINGS = ("(1) captions:", "(2) objects:", "(3) regions:")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """`system` holds the instructions, `user` the scene in the published three fields;
    `cut_lines` counts the scene's lines for which there was no room."""

    system: str
    user: str
    cut_lines: int = 0


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


def compose_prompt(
    kind: str,
    scene: Scene,
    templates: Mapping[str, str],
    prompt_tokens: int = PROMPT_TOKENS,
) -> Prompt:
    """`build_prompt` with the templates already loaded, kept within `prompt_tokens` (estimated).

    Captions come first: they are cut, the last one first, only where they alone are too long. From
    objects and regions, whole lines are left out, in proportion, those of small boxes first.
    Raises UserError where the instructions alone are too long.
    """
    system = templates[kind].strip()
    captions = [_one_line(caption) for caption in scene.captions]
    groups = (_object_lines(scene), _region_lines(scene, boxed=kind == REFERRING_QA))
    room = prompt_tokens - most_tokens("\n".join((system, *_HEADINGS)))
    if room < 0:
        raise UserError(
            f"the instructions for {kind} alone take about {prompt_tokens - room} tokens, more "
            f"than the {prompt_tokens} that a prompt may have; raise --prompt-tokens."
        )
    kept_captions = fit_start(captions, room)
    room -= sum(most_tokens(f"{caption}\n") for caption in kept_captions)
    kept = (kept_captions, *fit_lines(groups, room))
    user = "\n".join(
        line for heading, lines in zip(_HEADINGS, kept, strict=True) for line in (heading, *lines)
    )
    lines = len(captions) + sum(len(group) for group in groups)
    return Prompt(system, user, cut_lines=lines - sum(len(texts) for texts in kept))


def _object_lines(scene: Scene) -> list[Line]:
    return [
        Line(f"{_one_line(item.name)}: {_box_text(item.box, scene)}", _area(item.box))
        for item in scene.objects
    ]


def _region_lines(scene: Scene, boxed: bool) -> list[Line]:
    """Regions carry boxes only in the referring task: the published prompts mention them there
    alone."""
    lines = []
    for region in scene.regions:
        phrase = _one_line(region.phrase)
        text = f"{phrase}: {_box_text(region.box, scene)}" if boxed else phrase
        lines.append(Line(text, _area(region.box)))
    return lines


def _box_text(box: PixelBox, scene: Scene) -> str:
    return format_box(normalise_box(box, scene.width, scene.height))


def _area(box: PixelBox) -> int:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _one_line(text: str) -> str:
    return " ".join(text.split())
