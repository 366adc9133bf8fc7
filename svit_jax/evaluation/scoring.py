"""`svit score`: a file of predictions against the official questions."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.judged import Judged
from svit_jax.evaluation.registry import find_benchmark
from svit_jax.evaluation.unanswered import settle

_BY_POSITION = ("pope",)


@dataclass(frozen=True)
class ScoredFile:
    """The official figures; with `strict`, those without the official code's `quirks` beside them.
    `notes` name what the file lacked and how that was counted."""

    official: Mapping[str, float]
    strict: Mapping[str, float] | None
    quirks: tuple[str, ...]
    notes: tuple[str, ...]


def score_file(name: str, data: PathLike, predictions: PathLike, strict: bool) -> ScoredFile:
    """The figures of the predictions on a benchmark's official files in `data`.

    With `strict` a file that the official script refuses for its missing answers has strict
    figures alone. Raises UserError for malformed files, and without `strict` for such a one.
    """
    benchmark = find_benchmark(name)
    if isinstance(benchmark, Judged):
        raise UserError(f"{name}: a judge grades these answers; use svit judge, not svit score.")
    questions = benchmark.read(data, None)
    answers = read_answers(predictions, questions, by_position=name in _BY_POSITION)
    official: Mapping[str, float] = {}
    notes = []
    try:
        settled = settle(name, questions, answers)
    except UserError as error:
        if not strict:
            raise
        notes.append(str(error))
    else:
        official = benchmark.score(settled.questions, settled.answers)
        notes += [settled.note] if settled.note else []
    plain = None
    if strict:
        settled = settle(name, questions, read_answers(predictions, questions), strict=True)
        plain = benchmark.score(settled.questions, settled.answers, strict=True)
        notes += [f"strictly, {settled.note}"] if settled.note else []
    return ScoredFile(official, plain, benchmark.quirks, tuple(notes))
