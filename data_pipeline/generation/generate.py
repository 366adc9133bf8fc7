"""The generation run: every scene and kind is asked once, however often the run is interrupted."""

import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from data_pipeline.annotations.scene import Scene, read_scenes
from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import (
    PathLike,
    content_hash,
    file_sha256,
    require_file,
    write_json,
)
from data_pipeline.common.journal import Journal
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.kinds import DETAIL_DESCRIPTION, KINDS, require_kinds
from data_pipeline.generation.parsing import parse_response
from data_pipeline.generation.prompt import DETAIL_QUESTIONS, compose_prompt, load_templates
from data_pipeline.generation.raw_files import RawPicture, json_list_writer, raw_to_json
from data_pipeline.generation.teacher import Request, Teacher


@dataclasses.dataclass(frozen=True)
class KindCount:
    """What one kind of data came to."""

    responses: int
    pictures: int
    dialogues: int
    question_answers: int
    rejected: int


@dataclasses.dataclass(frozen=True)
class GenerationReport:
    """What a run made; `rejections` counts the quarantined parts by the reason's code."""

    scenes: int
    kinds: dict[str, KindCount]
    rejections: dict[str, int]


def generate(
    scenes_path: PathLike,
    out_folder: PathLike,
    teacher: Teacher,
    kinds: Collection[str] = KINDS,
    seed: int = 0,
    max_bad: int | None = None,
    template_folder: PathLike | None = None,
) -> GenerationReport:
    """Asks `teacher` about every scene and writes `<kind>.json` in SVIT's raw format.

    `out_folder` (local disk) also gets `journal.jsonl` (raw responses: a run that was killed goes
    on from it, and ends with the same files), `quarantine.jsonl` and `report.json`. Past `max_bad`
    rejected parts the run stops with a UserError. Raises UserError where the journal belongs to
    other scenes, prompts, seed or teacher, or two scenes share an id.
    """
    kinds = require_kinds(kinds)
    templates = load_templates(template_folder)
    out = epath.Path(out_folder)
    scenes_file = require_file(scenes_path, "scenes file")
    identity = content_hash([teacher.name, templates, seed, file_sha256(scenes_file)])
    for leftover in out.glob(".*.partial") if out.exists() else ():
        leftover.unlink()  # what a killed run was writing
    with scenes_file.open("r") as lines:
        total = sum(1 for line in lines if line.strip())
    quarantine = Quarantine(out / "quarantine.jsonl", max_bad)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    seen: set[int] = set()
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(out / "journal.jsonl", identity))
        write = {
            kind: stack.enter_context(json_list_writer(out / f"{kind}.json")) for kind in kinds
        }
        for scene in progress(read_scenes(scenes_file), "generate", total, "scene"):
            if scene.image_id in seen:
                raise UserError(
                    f"scenes file {scenes_file} has image {scene.image_id} twice; "
                    "write it again with `svit data annotate`."
                )
            seen.add(scene.image_id)
            for kind in kinds:
                key = f"{scene.image_id}/{kind}"
                if key not in journal:
                    request = Request(kind, scene, compose_prompt(kind, scene, templates), seed)
                    journal.add(key, _ask(teacher, request))
                dialogues = _usable(kind, key, journal[key], quarantine, counts[kind])
                if kind == DETAIL_DESCRIPTION:
                    question = _detail_question(scene, templates, seed)
                    dialogues = tuple((Turn("human", question), *turns) for turns in dialogues)
                if dialogues:
                    write[kind](raw_to_json(RawPicture(scene.image_id, dialogues)))
                    counts[kind]["pictures"] += 1
                    counts[kind]["dialogues"] += len(dialogues)
                    counts[kind]["question_answers"] += sum(len(t) // 2 for t in dialogues)
    quarantine.save()
    fields = [field.name for field in dataclasses.fields(KindCount)]
    report = GenerationReport(
        scenes=len(seen),
        kinds={
            kind: KindCount(**{field: counts[kind][field] for field in fields}) for kind in kinds
        },
        rejections=quarantine.counts(),
    )
    write_json(out / "report.json", dataclasses.asdict(report))
    return report


def _ask(teacher: Teacher, request: Request) -> dict[str, str]:
    try:
        return {"response": teacher.answer(request)}
    except BadRecordError as error:
        return {"error": str(error)}


def _usable(
    kind: str, key: str, row: Mapping[str, Any], quarantine: Quarantine, counts: Counter[str]
) -> tuple[tuple[Turn, ...], ...]:
    counts["responses"] += 1
    if "error" in row:
        counts["rejected"] += 1
        quarantine.add(key, f"teacher_error: {row['error']}")
        return ()
    try:
        parsed = parse_response(kind, row["response"])
    except BadRecordError as error:
        counts["rejected"] += 1
        quarantine.add(key, str(error), text=row["response"])
        return ()
    for rejection in parsed.rejections:
        counts["rejected"] += 1
        quarantine.add(key, rejection.reason, text=rejection.text)
    return parsed.items


def _detail_question(scene: Scene, templates: Mapping[str, str], seed: int) -> str:
    questions = [line.strip() for line in templates[DETAIL_QUESTIONS].splitlines() if line.strip()]
    return random.Random(f"{seed}/{scene.image_id}/{DETAIL_QUESTIONS}").choice(questions)
