"""Runs an answerer over a benchmark's questions: each answered once, kept across `kill -9`."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, open_atomic
from data_pipeline.common.journal import Journal
from data_pipeline.common.progress import progress_bar
from svit_jax.evaluation.answers import Answers, write_answers
from svit_jax.evaluation.benchmark import Benchmark, Question

Answerer = Callable[[Sequence[Question]], Iterator[str]]
"""Takes the questions still open, yields their answers in the same order; batches as it likes."""


def run_benchmark(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answer: Answerer,
    out_folder: PathLike,
    identity: str,
    blank: bool = False,
    model_id: str = "svit-jax",
) -> Answers:
    """The answers to all questions, in their order; those journalled before are not asked again.

    Writes `<name>.answers.jsonl` (LLaVA's format) and the official upload `<name>.upload/...`;
    `<name>` gets `.blank` with `blank=True`. Then the questions are handed on with `image=None`,
    for which the answerer shows an empty picture: what the text alone gives away.

    `identity` says what answers (checkpoint, decoding); together with the questions it guards the
    journal. Raises UserError where the journal in `out_folder` is of other questions or another
    identity, or a question id occurs twice, and ValueError if the answerer yields too few or too
    many answers.
    """
    _require_distinct(questions, benchmark.name)
    if blank:
        questions = [dataclasses.replace(question, image=None) for question in questions]
    stem = f"{benchmark.name}.blank" if blank else benchmark.name
    folder = pathlib.Path(out_folder)
    asked = [[question.question_id, question.text] for question in questions]
    inputs = content_hash([benchmark.name, blank, identity, asked])
    with Journal(folder / f"{stem}.journal.jsonl", inputs) as journal:
        open_questions = [q for q in questions if q.question_id not in journal]
        _ask(open_questions, answer, journal, stem, total=len(questions))
        texts = {q.question_id: str(journal[q.question_id]) for q in questions}
    answers_file = folder / f"{stem}.answers.jsonl"
    metadata = {"benchmark": benchmark.name, "blank": blank}
    write_answers(answers_file, questions, texts, model_id, metadata)
    for name, content in benchmark.submission(questions, texts).items():
        data = content.encode() if isinstance(content, str) else content
        with open_atomic(folder / f"{stem}.upload" / name, "wb") as file:
            file.write(data)
    return Answers(benchmark.name, blank, texts, answers_file)


def _ask(
    questions: Sequence[Question], answer: Answerer, journal: Journal, name: str, total: int
) -> None:
    given = 0
    with progress_bar(total, name, unit="question", initial=total - len(questions)) as bar:
        for text in answer(questions) if questions else ():
            if given == len(questions):
                raise ValueError(f"{name}: the answerer gave more than {len(questions)} answers")
            journal.add(questions[given].question_id, text)
            given += 1
            bar.update()
    if given < len(questions):
        raise ValueError(
            f"{name}: the answerer stopped after {given} of {len(questions)} questions; "
            f"the next is {questions[given].question_id}"
        )


def _require_distinct(questions: Sequence[Question], name: str) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise UserError(
                f"{name}: question id {question.question_id} occurs twice; "
                "answers are kept by id, so mend the question file."
            )
        seen.add(question.question_id)
