"""Benchmarks whose answers a language model grades: each asked once, journalled, in a budget."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, write_json, write_text
from data_pipeline.common.journal import Journal
from data_pipeline.common.progress import note, progress_bar
from data_pipeline.endpoint.asking import Conduct, answer_from_row, ask_all
from data_pipeline.endpoint.budget import Budget, Prices
from data_pipeline.endpoint.call import Model, Tokens
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.intervals import Tally


class Told(NamedTuple):
    """What a judge is told: the instructions ("" for none) and the message."""

    system: str
    user: str


Grade = tuple[float, ...]
Ask = Callable[[Question, str, int], Told]
"""What the judge is asked about an answer; from 1 on, again, after a reply that can't be read."""


@dataclasses.dataclass(frozen=True)
class Review:
    """What the judge said of one answer, and the grade read from it."""

    reply: str
    grade: Grade


@runtime_checkable
class Judged(Protocol):
    """A benchmark with a judge. It is a `Benchmark` too, whose questions have no truth."""

    @property
    def name(self) -> str: ...

    @property
    def judge(self) -> str:
        """The model that the published figures were graded by."""
        ...

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of each time that the judge is asked about an answer, until its reply can be read."""
        ...

    @property
    def reply_tokens(self) -> int: ...

    @property
    def unreadable(self) -> Grade:
        """The grade where no reply could be read, as the official script has it."""
        ...

    def ask(self, folder: PathLike) -> Ask:
        """Reads what the judge is told from the official files. Raises UserError without them."""
        ...

    def grade(self, reply: str) -> Grade | None:
        """The grade that a reply gives; None where it can't be read."""
        ...

    def figures(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Grade]]
    ) -> dict[str, float]:
        """The official figures of the grades by question id, of one run of the judge or several."""
        ...

    def reviews(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Review]], judge: str
    ) -> dict[str, str]:
        """The official files of the reviews: file name -> text."""
        ...


class NeedsJudge:
    """The part of `Benchmark` that a benchmark with a judge has no answer to."""

    quirks: tuple[str, ...] = ()

    def correct(self, question: Question, answer: str) -> bool:
        return False

    def expected(self, question: Question) -> str:
        return ""

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        raise UserError("a judge grades these answers: use `svit judge` in place of `svit score`.")

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Figures, by whom they are, and how many replies could not be read. `answers` is a hash of
    what was graded."""

    judge: str
    runs: int
    figures: Mapping[str, float]
    unreadable: int
    answers: str

    @property
    def note(self) -> str:
        times = "once" if self.runs == 1 else f"{self.runs} times"
        lost = f"; {self.unreadable} replies could not be read" if self.unreadable else ""
        return (
            f"Graded {times} by {self.judge}{lost}. Judges differ, and one name's model changes: "
            "compare only with figures of the same judge."
        )


@dataclasses.dataclass(frozen=True)
class Grading:
    """What is graded, and by whom. `model` gives the judge at a temperature, for replies of at
    most so many tokens."""

    benchmark: Judged
    questions: Sequence[Question]
    answers: Mapping[str, str]
    folder: PathLike
    judge: str
    model: Callable[[float, int], Model[Any]]
    runs: int = 1


@dataclasses.dataclass(frozen=True)
class _Request:
    key: str
    system: str
    user: str
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class JudgeForecast:
    """Calls that are still to be made (one an answer, if every reply can be read)."""

    calls: int
    input_tokens: int
    output_tokens_at_most: int

    def cost(self, prices: Prices) -> float:
        return prices.cost(Tokens(self.input_tokens, self.output_tokens_at_most))


def forecast_grading(grading: Grading) -> JudgeForecast:
    """Counts what `grade_answers` would ask first; nothing is called or written."""
    benchmark, runs = grading.benchmark, grading.runs
    model = grading.model(benchmark.temperatures[0], benchmark.reply_tokens)
    ask, answers = benchmark.ask(grading.folder), _complete(grading)
    ahead = Tokens()
    for question in grading.questions:
        ahead += model.estimate(_Request("", *ask(question, answers[question.question_id], 0)))
    return JudgeForecast(runs * len(answers), runs * ahead.input, runs * ahead.output)


def grade_answers(
    grading: Grading, out: PathLike, budget: Budget, conduct: Conduct = Conduct()
) -> Verdict:
    """Asks the judge about every answer, `grading.runs` times, and writes `<name>.judged.json` and
    the official files of reviews, `<name>.reviews/...`, into `out`.

    Replies are journalled: a run that was killed goes on. Raises UserError where the journal is of
    other answers, prompts or another judge, an answer is missing, or the budget is used up.
    """
    benchmark, questions = grading.benchmark, grading.questions
    ask, answers = benchmark.ask(grading.folder), _complete(grading)
    told = [ask(q, answers[q.question_id], 0) for q in questions]
    root, name = Path(out), benchmark.name
    identity = content_hash([name, grading.judge, told])
    with Journal(root / f"{name}.judge.jsonl", identity, budget.watch) as journal:
        for attempt, temperature in enumerate(benchmark.temperatures):
            model = grading.model(temperature, benchmark.reply_tokens)
            requests = list(_open_requests(grading, ask, journal, attempt))
            if requests:
                label = f"judge {name}" + (f", again ({attempt})" if attempt else "")
                with progress_bar(len(requests), label, "answer") as bar:
                    ask_all(iter(requests), model, journal, budget, conduct, bar)
        runs, unreadable = _reviews(grading, journal)
    figures = benchmark.figures(
        questions, [{key: review.grade for key, review in run.items()} for run in runs]
    )
    verdict = Verdict(
        grading.judge,
        grading.runs,
        figures,
        unreadable,
        hash_of_answers(grading.answers, questions),
    )
    for file, text in benchmark.reviews(questions, runs, grading.judge).items():
        write_text(root / f"{name}.reviews" / file, text)
    write_json(root / f"{name}.judged.json", dataclasses.asdict(verdict))
    if unreadable:
        note(f"{name}: {unreadable} replies could not be read; graded as the official script does.")
    return verdict


def _complete(grading: Grading) -> Mapping[str, str]:
    """The answers. Raises UserError where one is missing."""
    missing = [q.question_id for q in grading.questions if q.question_id not in grading.answers]
    if missing:
        raise UserError(
            f"{grading.benchmark.name}: {len(missing)} of {len(grading.questions)} questions have "
            f"no answer (the first is {missing[0]}); finish the run of svit eval first."
        )
    return grading.answers


def read_verdict(
    out: PathLike, name: str, answers: Mapping[str, str], questions: Sequence[Question]
) -> Verdict | None:
    """What `grade_answers` wrote of these answers; None where it is of others, or is not there."""
    path = Path(out) / f"{name}.judged.json"
    if not path.exists():
        return None
    try:
        verdict = Verdict(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise UserError(f"{path} is not what `svit judge` writes; remove it.") from None
    return verdict if verdict.answers == hash_of_answers(answers, questions) else None


def hash_of_answers(answers: Mapping[str, str], questions: Sequence[Question]) -> str:
    return content_hash([[q.question_id, answers.get(q.question_id)] for q in questions])


def _key(run: int, question: Question, attempt: int) -> str:
    return f"{run}/{question.question_id}/{attempt}"


def _open_requests(
    grading: Grading, ask: Ask, journal: Journal, attempt: int
) -> Iterator[_Request]:
    """Those of this attempt that were not asked yet, of which no reply before could be read."""
    for run in range(grading.runs):
        for question in grading.questions:
            key = _key(run, question, attempt)
            if key not in journal and _review(grading, journal, run, question, attempt) is None:
                told = ask(question, grading.answers[question.question_id], attempt)
                yield _Request(key, *told, run)


def _review(
    grading: Grading, journal: Journal, run: int, question: Question, attempts: int
) -> Review | None:
    """The first reply to be read, of so many attempts."""
    for attempt in range(attempts):
        key = _key(run, question, attempt)
        if key in journal:
            reply = answer_from_row(journal[key])
            grade = None if reply.fault else grading.benchmark.grade(reply.text)
            if grade is not None:
                return Review(reply.text, grade)
    return None


def _reviews(grading: Grading, journal: Journal) -> tuple[list[dict[str, Review]], int]:
    attempts = len(grading.benchmark.temperatures)
    runs: list[dict[str, Review]] = []
    unreadable = 0
    for run in range(grading.runs):
        found: dict[str, Review] = {}
        for question in grading.questions:
            review = _review(grading, journal, run, question, attempts)
            if review is None:
                unreadable += 1
                last: Any = journal[_key(run, question, attempts - 1)]
                review = Review(last["response"], grading.benchmark.unreadable)
            found[question.question_id] = review
        runs.append(found)
    return runs, unreadable
