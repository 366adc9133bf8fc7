"""`svit eval`: an answerer over benchmarks' official files."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_pipeline.common.files import PathLike, write_json
from svit_jax.evaluation.archives import readable
from svit_jax.evaluation.benchmark import NoPicture, Question
from svit_jax.evaluation.registry import find_benchmark
from svit_jax.evaluation.runner import run_benchmark
from svit_jax.evaluation.summary import BenchmarkRun

AnswerAll = Callable[[Iterable[tuple[Path | bytes | NoPicture | None, str]]], Iterator[str]]
"""Takes (picture, None for a blank or TEXT_ALONE for none; question), yields answers in order, as
`Assistant.answer_all`."""


def evaluate(
    answer_all: AnswerAll,
    identity: str,
    benchmarks: Sequence[str],
    data: PathLike,
    images: PathLike,
    out: PathLike,
    blank: bool = False,
    limit: int = 0,
) -> dict[str, BenchmarkRun]:
    """Answers each benchmark's questions, writes the upload and `<name>.scores.json`, and returns
    questions and answers by benchmark name.

    `data` is the benchmark's folder, or a folder that holds it under its name; `limit` takes a
    subset (see `subset`); `identity` names
    the checkpoint and decoding, so that journalled answers are never those of another model.
    """

    def answer(questions: Sequence[Question]) -> Iterator[str]:
        return answer_all((_shown(q), q.text) for q in questions)

    runs = {}
    for name in benchmarks:
        benchmark = find_benchmark(name)
        questions = read_questions(name, data, images, limit)
        answers = run_benchmark(benchmark, questions, answer, out, identity, blank)
        stem = f"{name}.blank" if blank else name
        runs[name] = BenchmarkRun(benchmark, questions, answers.texts)
        write_json(Path(out) / f"{stem}.scores.json", scores(runs)[name])
    return runs


def _shown(question: Question) -> Path | bytes | NoPicture | None:
    if not question.has_picture:
        return NoPicture.TEXT_ALONE
    return None if question.image is None else readable(question.image)


def read_questions(name: str, data: PathLike, images: PathLike, limit: int = 0) -> list[Question]:
    """The questions that `evaluate` asks. Raises UserError as the benchmark's reader does."""
    return subset(find_benchmark(name).read(benchmark_folder(name, data), images), limit)


def benchmark_folder(name: str, data: PathLike) -> Path:
    """The benchmark's own folder in `data`, or `data` itself."""
    return Path(data) / name if (Path(data) / name).is_dir() else Path(data)


def subset(questions: Sequence[Question], limit: int) -> list[Question]:
    """Up to `limit` questions (0: all), spread evenly over the pictures; those of one picture stay
    together, since benchmarks score them together, even where one picture has more than `limit`."""
    if not limit or len(questions) <= limit:
        return list(questions)
    by_picture: dict[object, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.image or question.question_id, []).append(question)
    pictures = list(by_picture.values())
    wanted = max(1, limit * len(pictures) // len(questions))
    chosen: list[Question] = []
    for place in range(wanted):
        more = pictures[place * len(pictures) // wanted]
        if chosen and len(chosen) + len(more) > limit:
            break
        chosen += more
    return chosen


def scores(runs: Mapping[str, BenchmarkRun], strict: bool = False) -> dict[str, dict[str, float]]:
    """The official (or strict) figures of each benchmark; none where the truth is not public (a
    test split, whose upload is for the benchmark's server)."""
    return {
        name: run.benchmark.score(run.questions, run.answers, strict)
        if all(question.truth is not None for question in run.questions)
        else {}
        for name, run in runs.items()
    }


def with_blind(
    seen: Mapping[str, BenchmarkRun], blind: Mapping[str, BenchmarkRun]
) -> dict[str, BenchmarkRun]:
    """The runs with the answers that the same model gave to blank pictures beside them."""
    return {name: dataclasses.replace(run, blind=blind[name].answers) for name, run in seen.items()}
