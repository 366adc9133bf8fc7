"""What a benchmark is: official files -> questions, answers -> scores and the official upload."""

import enum
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.evaluation.archives import Picture, archives_in, find_zipped, unpack_matching
from svit_jax.evaluation.intervals import Tally, mean_tally

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""What LLaVA-1.5 appends to a question whose answer is short; the training data carry it too."""


class NoPicture(enum.Enum):
    """What an answerer is given in the place of a picture for a question of text alone."""

    TEXT_ALONE = "text alone"


@dataclass(frozen=True)
class Question:
    """One question to the model. `text` is everything after `<image>` and a line break, byte for
    byte; `truth` is JSON-like (None where the answers are not public); `novel` marks a question
    about a combination that the training data hold only in parts. Without `has_picture` the
    prompt is `text` alone, with no `<image>`. `picture` names the picture, read or not: answers to
    questions that share one are not independent. `upload_row` is what the official upload repeats
    of the question's row, where that is more than its id."""

    question_id: str
    text: str
    image: Picture | None
    truth: Any
    kind: str
    novel: bool = False
    has_picture: bool = True
    picture: str = ""
    upload_row: Mapping[str, str] | None = None


@runtime_checkable
class Benchmark(Protocol):
    """Reads, parses and scores as the benchmark's own scripts do."""

    @property
    def name(self) -> str: ...

    @property
    def quirks(self) -> tuple[str, ...]:
        """What the official scoring does that no one would expect, a sentence each; `strict`
        scoring does without."""
        ...

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        """The questions of the official files in `folder`, in their order.

        Pictures are looked up under `images`; None reads the questions without pictures (enough
        for scoring). Raises UserError for a missing file, field or picture.
        """
        ...

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the answer, parsed as the benchmark parses it, is the expected one."""
        ...

    def expected(self, question: Question) -> str:
        """The true answer, in words."""
        ...

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """The official figures of the answers (by question id); `strict` gives the same figures
        without the `quirks` of the official code.

        Raises UserError where a question has no answer or no public truth.
        """
        ...

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        """The headline figures of `score` as sums over pictures, which tell how sure they are."""
        ...

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> Mapping[str, str | bytes]:
        """The official upload: file name -> content."""
        ...


def find_file(folder: PathLike, name: str, pattern: str, what: str) -> pathlib.Path:
    """`folder/name` if it is there, else the one file there that matches `pattern`; a zip file
    there is looked into too, and the file unpacked beside it."""
    root = pathlib.Path(folder)
    if (root / name).is_file():
        return root / name
    found = unpack_matching(root, name) or unpack_matching(root, pattern)
    if len(found) == 1:
        return found[0]
    state = "there is none" if not found else f"there are {len(found)}"
    raise UserError(
        f"{what}: expected {name} or one file {pattern} in {root}, but {state}; "
        "put the official file, or the zip that holds it, there."
    )


def find_picture(images: PathLike | None, candidates: Sequence[str], where: str) -> Picture | None:
    """The first candidate (relative to `images`) that is a file, or is in a zip file there; None
    where `images` is None.

    Raises UserError, naming `where` and the first candidate, if none is there.
    """
    if images is None:
        return None
    root = pathlib.Path(images)
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    for candidate in candidates:
        zipped = find_zipped(root, candidate)
        if zipped is not None:
            return zipped
    archives = ", ".join(archive.name for archive in archives_in(root)) or "no zip file"
    raise UserError(
        f"{where}: its picture {candidates[0]} is not in {root}, which holds {archives}; "
        "check the images folder, or put the official zip of pictures there."
    )


def require_fields(row: Any, fields: Sequence[str], where: str) -> None:
    """Raises UserError if the row is not an object or lacks one of the fields."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, found {type(row).__name__}.")
    for field in fields:
        if field not in row:
            raise UserError(
                f"{where}: the field {field!r} is missing (found: {', '.join(map(str, row))}); "
                "is this the official file?"
            )


def answer_of(question: Question, answers: Mapping[str, str], benchmark: str) -> str:
    """The question's answer. Raises UserError where it is missing or cannot be scored."""
    if question.truth is None:
        raise UserError(
            f"{benchmark}: question {question.question_id} has no public answer; "
            "upload the submission file instead of scoring here."
        )
    if question.question_id not in answers:
        raise UserError(
            f"{benchmark}: question {question.question_id} has no answer; "
            "finish the run, or give the predictions of the same questions."
        )
    return answers[question.question_id]


def require_questions(questions: Sequence[Question], benchmark: str) -> None:
    """Raises UserError where there is nothing to score."""
    if not questions:
        raise UserError(f"{benchmark}: there are no questions to score; check the data folder.")


def percent(scores: Sequence[float]) -> float:
    """The mean x 100."""
    return 100.0 * sum(scores) / len(scores)


def mean_over(
    questions: Sequence[Question],
    credit: Callable[[Question, str], float],
    answers: Mapping[str, str],
) -> Tally:
    """The mean credit x 100 over the questions, those of one picture drawn together."""
    return mean_tally(
        [float(credit(question, answers[question.question_id])) for question in questions],
        [cluster_of(question) for question in questions],
    )


def cluster_of(question: Question) -> str:
    """What stands for its picture, or for the question alone where it has none."""
    return question.picture or f"question {question.question_id}"
