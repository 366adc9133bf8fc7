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


WITHHELD = ("content_filter", "refusal")
"""Faults of replies that came, without a grade. After any other fault no reply came."""

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

    def graded_tallies(
        self, questions: Sequence[Question], grades: Mapping[str, Grade]
    ) -> dict[str, Tally]:
        """The headline figure of the grades as sums over pictures, which tell how sure it is."""
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
    """Figures, by whom they are, and how many replies could not be read. `grades` are by question
    id, means over the runs; `answers` is a hash of what was graded."""

    judge: str
    runs: int
    figures: Mapping[str, float]
    unreadable: int
    answers: str
    grades: Mapping[str, Grade]

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
    """Calls that are still to be made (one an answer, if every reply can be read), and how many
    answers have a reply that can be."""

    calls: int
    graded: int
    input_tokens: int
    output_tokens_at_most: int

    def cost(self, prices: Prices) -> float:
        return prices.cost(Tokens(self.input_tokens, self.output_tokens_at_most))


def forecast_grading(grading: Grading, out: PathLike) -> JudgeForecast:
    """Counts what `grade_answers` would ask next; nobody is called."""
    benchmark = grading.benchmark
    ask = benchmark.ask(grading.folder)
    ahead = Tokens()
    calls = 0
    with _open_journal(grading, ask, out, Budget()) as journal:
        for attempt, temperature in enumerate(benchmark.temperatures):
            model = grading.model(temperature, benchmark.reply_tokens)
            for request in _open_requests(grading, ask, journal, attempt):
                ahead += model.estimate(request)
                calls += 1
    graded = grading.runs * len(grading.questions) - calls
    return JudgeForecast(calls, graded, ahead.input, ahead.output)


def grade_answers(
    grading: Grading, out: PathLike, budget: Budget, conduct: Conduct = Conduct()
) -> Verdict:
    """Asks the judge about every answer, `grading.runs` times, and writes `<name>.judged.json` and
    the official files of reviews, `<name>.reviews/...`, into `out`.

    Replies are journalled: a run that was killed goes on. Raises UserError where the journal is of
    other answers, prompts or another judge, an answer is missing or got no reply, or the budget is
    used up.
    """
    benchmark, questions = grading.benchmark, grading.questions
    ask = benchmark.ask(grading.folder)
    root, name = Path(out), benchmark.name
    with _open_journal(grading, ask, out, budget) as journal:
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
        {q.question_id: _mean([run[q.question_id].grade for run in runs]) for q in questions},
    )
    for file, text in benchmark.reviews(questions, runs, grading.judge).items():
        write_text(root / f"{name}.reviews" / file, text)
    write_json(root / f"{name}.judged.json", dataclasses.asdict(verdict))
    if unreadable:
        note(f"{name}: {unreadable} replies could not be read; graded as the official script does.")
    return verdict


def _open_journal(grading: Grading, ask: Ask, out: PathLike, budget: Budget) -> Journal:
    """The replies so far. Raises UserError where an answer is missing."""
    name, answers = grading.benchmark.name, grading.answers
    missing = [q.question_id for q in grading.questions if q.question_id not in grading.answers]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(grading.questions)} questions have no answer (the "
            f"first is {missing[0]}); finish the run of svit eval first, or grade those that it "
            "answered with --answered."
        )
    told = [ask(q, answers[q.question_id], 0) for q in grading.questions]
    identity = content_hash([name, grading.judge, told])
    return Journal(Path(out) / f"{name}.judge.jsonl", identity, budget.watch)


def read_verdict(
    out: PathLike, name: str, answers: Mapping[str, str], questions: Sequence[Question]
) -> Verdict | None:
    """What `grade_answers` wrote of these answers; None where it is of others, or is not there."""
    path = Path(out) / f"{name}.judged.json"
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text())
        grades = {key: tuple(grade) for key, grade in row.pop("grades").items()}
        verdict = Verdict(**row, grades=grades)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"{path} is not what this version of `svit judge` writes; run that again, which asks "
            "nothing twice."
        ) from None
    return verdict if verdict.answers == hash_of_answers(answers, questions) else None


def _mean(grades: Sequence[Grade]) -> Grade:
    return tuple(sum(side) / len(grades) for side in zip(*grades, strict=True))


def hash_of_answers(answers: Mapping[str, str], questions: Sequence[Question]) -> str:
    return content_hash(sorted([q.question_id, answers.get(q.question_id)] for q in questions))


def _key(run: int, question: Question, attempt: int) -> str:
    return f"{run}/{question.question_id}/{attempt}"


def _open_requests(
    grading: Grading, ask: Ask, journal: Journal, attempt: int
) -> Iterator[_Request]:
    """Those of this attempt without a reply, where the one before had a reply without a grade."""
    for run in range(grading.runs):
        for question in grading.questions:
            key = _key(run, question, attempt)
            if _reply(journal, key) is not None:
                continue
            if attempt:
                before = _reply(journal, _key(run, question, attempt - 1))
                if before is None or grading.benchmark.grade(before) is not None:
                    continue
            told = ask(question, grading.answers[question.question_id], attempt)
            yield _Request(key, *told, run)


def _reply(journal: Journal, key: str) -> str | None:
    """What the judge said; None where it was not asked, or the call failed: that is no grade, and
    the next start makes it again."""
    if key not in journal:
        return None
    reply = answer_from_row(journal[key])
    failed = reply.fault is not None and not reply.fault.startswith(WITHHELD)
    return None if failed else reply.text


def _reviews(grading: Grading, journal: Journal) -> tuple[list[dict[str, Review]], int]:
    """Each run's reviews, and how many hold no grade. Raises UserError where a call failed."""
    benchmark = grading.benchmark
    runs: list[dict[str, Review]] = []
    failed: list[str] = []
    unreadable = 0
    for run in range(grading.runs):
        found: dict[str, Review] = {}
        for question in grading.questions:
            for attempt in range(len(benchmark.temperatures)):
                key = _key(run, question, attempt)
                reply = _reply(journal, key)
                grade = None if reply is None else benchmark.grade(reply)
                if reply is None or grade is not None:
                    break
            if reply is None:
                failed.append(f"{question.question_id}: {journal[key]['fault']}")
                continue
            unreadable += grade is None
            found[question.question_id] = Review(reply, grade or benchmark.unreadable)
        runs.append(found)
    if failed:
        raise UserError(
            f"{benchmark.name}: the judge gave no reply about {len(failed)} answers (the first is "
            f"to question {failed[0]}); run the same command again, which asks for these alone."
        )
    return runs, unreadable
