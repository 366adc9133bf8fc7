"""From the journal to files: the same answers give the same bytes, in whatever order they came."""

import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import write_json
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.endpoint.call import Answer, Tokens
from data_pipeline.generation.kinds import DETAIL_DESCRIPTION
from data_pipeline.generation.parsing import Parsed, Rejection, parse_response
from data_pipeline.generation.prompt import DETAIL_QUESTIONS
from data_pipeline.generation.raw_files import RawPicture, raw_to_json
from data_pipeline.generation.run import QUARANTINE, Run
from data_pipeline.generation.teacher import request_key


@dataclasses.dataclass(frozen=True)
class KindCount:
    """What one kind of data came to: `rejections` counts the quarantined parts by the reason's
    code, `rejected` all of them; `notes` counts answers that are used though they depart from what
    was asked (`wrong_count`); `superseded` are answers in whose place another attempt counts."""

    responses: int
    unanswered: int
    superseded: int
    pictures: int
    dialogues: int
    question_answers: int
    rejected: int
    rejections: dict[str, int]
    notes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class GenerationReport:
    """What a run made; `rejections` is the sum over kinds, tokens are those of all answers.

    `cut_lines` counts the lines of scenes for which the prompts of this run's calls had no room.
    """

    scenes: int
    kinds: dict[str, KindCount]
    rejections: dict[str, int]
    input_tokens: int
    output_tokens: int
    cut_lines: int


def read_answer(kind: str, answer: Answer) -> Parsed:
    """The usable dialogues of an answer and the rejected parts, be it the whole."""
    if answer.fault is not None:
        return Parsed((), (Rejection(answer.fault, answer.text),))
    try:
        return parse_response(kind, answer.text, answer.cut_off)
    except BadRecordError as error:
        return Parsed((), (Rejection(str(error), answer.text),))


def assemble(run: Run, max_bad: int | None = None) -> GenerationReport:
    """Writes `<kind>.json` in SVIT's raw format, `quarantine.jsonl` and `report.json`.

    Of several attempts that with the most question-answer pairs counts, of equal ones the latest.
    Questions without an answer are counted and left out. Past `max_bad` rejected parts it stops
    with a UserError, and the raw files of an earlier run stay as they are.
    """
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in run.kinds}
    reasons: dict[str, Counter[str]] = {kind: Counter() for kind in run.kinds}
    notes: dict[str, Counter[str]] = {kind: Counter() for kind in run.kinds}
    tokens = Tokens()
    quarantine = Quarantine(run.out / QUARANTINE, max_bad)
    with contextlib.ExitStack() as stack:
        write = {
            kind: stack.enter_context(json_list_writer(run.out / f"{kind}.json"))
            for kind in run.kinds
        }
        for image_id in progress(run.image_ids, "write", len(run.image_ids), "scene"):
            for kind in run.kinds:
                answers = run.answers(image_id, kind)
                count = counts[kind]
                if not answers:
                    count["unanswered"] += 1
                    continue
                count["responses"] += 1
                count["superseded"] += len(answers) - 1
                tokens = sum((answer.tokens for answer in answers), tokens)
                parsed = _best([read_answer(kind, answer) for answer in answers])
                notes[kind].update(note.split(":")[0] for note in parsed.notes)
                for rejection in parsed.rejections:
                    reasons[kind][rejection.reason.split(":")[0]] += 1
                    quarantine.add(
                        request_key(image_id, kind),
                        rejection.reason,
                        text=rejection.text,
                        attempts=len(answers),
                    )
                dialogues = parsed.items
                if kind == DETAIL_DESCRIPTION:
                    question = _detail_question(image_id, run.templates, run.seed)
                    dialogues = tuple((Turn("human", question), *turns) for turns in dialogues)
                if dialogues:
                    write[kind](raw_to_json(RawPicture(image_id, dialogues)))
                    count["pictures"] += 1
                    count["dialogues"] += len(dialogues)
                    count["question_answers"] += sum(len(turns) // 2 for turns in dialogues)
    quarantine.save()
    report = GenerationReport(
        scenes=len(run.image_ids),
        kinds={kind: _kind_count(counts[kind], reasons[kind], notes[kind]) for kind in run.kinds},
        rejections=dict(sum(reasons.values(), Counter())),
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cut_lines=run.cut_lines,
    )
    write_json(run.out / "report.json", dataclasses.asdict(report))
    return report


def _best(attempts: Sequence[Parsed]) -> Parsed:
    def worth(number: int) -> tuple[int, int]:
        return sum(len(turns) for turns in attempts[number].items), number

    return attempts[max(range(len(attempts)), key=worth)]


def _kind_count(count: Counter[str], reasons: Counter[str], notes: Counter[str]) -> KindCount:
    counted = {"rejected", "rejections", "notes"}
    names = {field.name for field in dataclasses.fields(KindCount)} - counted
    numbers = {name: count[name] for name in names}
    return KindCount(
        **numbers, rejected=reasons.total(), rejections=dict(reasons), notes=dict(notes)
    )


def _detail_question(image_id: int, templates: Mapping[str, str], seed: int) -> str:
    questions = [line.strip() for line in templates[DETAIL_QUESTIONS].splitlines() if line.strip()]
    return random.Random(f"{seed}/{image_id}/{DETAIL_QUESTIONS}").choice(questions)
