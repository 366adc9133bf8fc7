"""MMMU: college questions in 30 subjects; letters and short answers by the official parse."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.evaluation.benchmark import (
    SHORT_ANSWER,
    Question,
    answer_of,
    find_picture,
    percent,
    require_questions,
)
from svit_jax.evaluation.intervals import Tally, mean_tally
from svit_jax.evaluation.mmmu_files import literal_list, read_rows, subject_of
from svit_jax.evaluation.mmmu_parsing import letters, open_is_right, parse_choice, parse_open

DISCIPLINES: Mapping[str, Sequence[str]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}

_LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
_NO_ANSWER = "?"
_SEED = 42


@dataclass(frozen=True)
class MMMUQuestion(Question):
    """A question with its options, which the answer's parse needs; an open one has none."""

    options: Sequence[str] = ()


@dataclass(frozen=True)
class MMMU:
    """Reads the release's parquet files (validation, else test), or a JSON export of them.

    As in the reference run only a row's first picture is shown, and "<image 1>" stays in the text.
    """

    name: str = "mmmu"
    quirks = (
        "Where an answer chooses no option a letter is drawn (seed 42, in the order of the "
        "questions), which may be the right one.",
        'An open answer is right if a true text stands anywhere in it: "reddish" for "red".',
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        return [_question(row, images) for row in read_rows(folder, images)]

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the parsed answer is right; one that chooses no option is wrong, not drawn."""
        options = _options(question)
        if options:
            return parse_choice(answer, options) == question.truth
        return open_is_right(parse_open(answer), question.truth)

    def expected(self, question: Question) -> str:
        return question.truth if _options(question) else question.truth[0]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """Accuracy x 100 over all questions, by discipline and by subject, as the official script
        has it: where an answer chooses no option, a letter is drawn (seed 42, in the order of the
        questions). `accuracy_without_draws` counts such answers as wrong, as strict scoring does,
        which looks for open truths among an answer's whole words."""
        require_questions(questions, self.name)
        given = [answer_of(question, answers, self.name) for question in questions]
        plainly_right = [
            open_is_right(parse_open(answer), question.truth, whole_words=True)
            if strict and not _options(question)
            else self.correct(question, answer)
            for question, answer in zip(questions, given, strict=True)
        ]
        verdicts = plainly_right if strict else self._verdicts(questions, answers)
        right: dict[str, list[float]] = {}
        for question, verdict in zip(questions, verdicts, strict=True):
            right.setdefault(subject_of(question.question_id), []).append(float(verdict))
        figures = {
            "accuracy": percent([value for values in right.values() for value in values]),
            "accuracy_without_draws": percent([float(verdict) for verdict in plainly_right]),
        }
        for discipline, subjects in DISCIPLINES.items():
            values = [value for subject in subjects for value in right.get(subject, [])]
            if values:
                figures[discipline] = percent(values)
        return {**figures, **{subject: percent(values) for subject, values in right.items()}}

    def _verdicts(self, questions: Sequence[Question], answers: Mapping[str, str]) -> list[bool]:
        """As the official script has them: a letter is drawn where an answer chooses none."""
        rng = random.Random(_SEED)
        return [
            _chosen(answers[question.question_id], _options(question), rng) == question.truth
            if _options(question)
            else self.correct(question, answers[question.question_id])
            for question in questions
        ]

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        verdicts = self._verdicts(questions, answers)
        clusters = [question.question_id for question in questions]
        return {"accuracy": mean_tally([float(v) for v in verdicts], clusters)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """The official {id: letter, or the open answer as it was given}."""
        rng = random.Random(_SEED)
        parsed = {}
        for question in questions:
            answer = answers[question.question_id]
            options = _options(question)
            parsed[question.question_id] = _chosen(answer, options, rng) if options else answer
        return {"mmmu_results.json": json.dumps(parsed, ensure_ascii=False, indent=1) + "\n"}


def _chosen(answer: str, options: Sequence[str], rng: random.Random) -> str:
    return parse_choice(answer, options) or rng.choice(letters(options))


def _options(question: Question) -> Sequence[str]:
    if not isinstance(question, MMMUQuestion):
        raise TypeError(f"{question.question_id} was not read by MMMU: its options are unknown")
    return question.options


def _question(row: Mapping[str, Any], images: PathLike | None) -> MMMUQuestion:
    where = f"MMMU question {row['id']}"
    closed = row["question_type"] == "multiple-choice"
    options = literal_list(row["options"], where) if closed else []
    if closed and not options:
        raise UserError(f"{where}: it is multiple-choice, but has no options; mend the file.")
    lines = [f"({a}) {text}\n" for a, text in zip(letters(options), options, strict=True)]
    # Each option ends its line, so exactly one blank line stands before the instruction.
    with_options = f"{row['question']}\n{''.join(lines)}{_LETTER_ANSWER}"
    return MMMUQuestion(
        question_id=row["id"],
        text=with_options if closed else row["question"] + SHORT_ANSWER,
        image=find_picture(images, [row.get("image") or f"{row['id']}.png"], where),
        truth=_truth(row["answer"], options, where),
        kind=str(row.get("kind") or subject_of(row["id"])),
        novel=bool(row.get("novel_combination", False)),
        options=tuple(options),
    )


def _truth(answer: Any, options: Sequence[str], where: str) -> str | list[str] | None:
    """A letter, or the true answers of an open question; None where the split has none ("?")."""
    if answer in (None, "", _NO_ANSWER):
        return None
    if options:
        if answer not in letters(options):
            raise UserError(
                f"{where}: its answer {answer!r} is none of {', '.join(letters(options))}."
            )
        return answer
    # Not every bracket is a list: an interval is an answer too.
    written_as_list = isinstance(answer, list) or str(answer).startswith(("['", '["'))
    return literal_list(answer, where) if written_as_list else [str(answer)]
