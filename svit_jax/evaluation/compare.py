"""`svit compare`: are two checkpoints' answers to the same questions apart by more than chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import note
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.intervals import Interval, Tally, bootstrap_difference, mcnemar
from svit_jax.evaluation.judged import Judged, Verdict, read_verdict
from svit_jax.evaluation.registry import BENCHMARKS, find_benchmark
from svit_jax.evaluation.run import benchmark_folder
from svit_jax.evaluation.summary import BenchmarkRun


@dataclass(frozen=True)
class Comparison:
    """One figure of two runs; `difference` is second - first, `interval` where 95 % of its
    bootstrap lies. `only_first` and `only_second` count the questions that just one of the two gets
    right (or a judge grades higher), `p_value` is McNemar's of them."""

    benchmark: str
    figure: str
    questions: int
    first: float
    second: float
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p_value: float


def compare(
    first: PathLike, second: PathLike, data: PathLike, benchmarks: Sequence[str] = ()
) -> list[Comparison]:
    """The headline figures of two folders that `svit eval` wrote, of the benchmarks named or of all
    that both hold. Raises UserError where the two have answered other questions."""
    names = benchmarks or [
        name
        for name in BENCHMARKS
        if all((Path(f) / f"{name}.answers.jsonl").is_file() for f in (first, second))
    ]
    if not names:
        raise UserError(
            f"{first} and {second} hold answers to no benchmark in common (NAME.answers.jsonl); "
            "give the --out folders of two runs of svit eval."
        )
    found = []
    for name in names:
        mine, theirs = (read_run(name, folder, data) for folder in (first, second))
        found += compare_runs(mine, theirs, _verdict(first, mine), _verdict(second, theirs))
    return found


def compare_with(
    folder: PathLike,
    runs: Mapping[str, BenchmarkRun],
    judged: Mapping[str, Verdict] | None = None,
) -> list[Comparison]:
    """The runs, with what a judge said of them, as second, against what another `--out` folder
    holds of their benchmarks."""
    found = []
    for name, run in runs.items():
        path = Path(folder) / f"{name}.answers.jsonl"
        if path.is_file():
            answers = read_answers(path, run.questions)
            other = BenchmarkRun(run.benchmark, run.questions, answers)
            found += compare_runs(other, run, _verdict(folder, other), (judged or {}).get(name))
    return found


def read_run(name: str, folder: PathLike, data: PathLike) -> BenchmarkRun:
    """The answers that `svit eval` left in a folder, with the questions that they are to."""
    benchmark = find_benchmark(name)
    questions = benchmark.read(benchmark_folder(name, data), None)
    answers = read_answers(Path(folder) / f"{name}.answers.jsonl", questions)
    return BenchmarkRun(benchmark, [q for q in questions if q.question_id in answers], answers)


def compare_runs(
    first: BenchmarkRun,
    second: BenchmarkRun,
    first_verdict: Verdict | None = None,
    second_verdict: Verdict | None = None,
) -> list[Comparison]:
    """Each headline figure of two runs over the same questions; none where their truth is not
    public. Of a benchmark with a judge the verdicts are compared: then the questions that one run
    alone gets right are those with the higher grade. Where the two are not by one judge, nothing
    is, and a line on standard error says so."""
    benchmark, questions = first.benchmark, first.questions
    if set(first.answers) != set(second.answers):
        apart = sorted(set(first.answers) ^ set(second.answers))
        raise UserError(
            f"{benchmark.name}: the two runs have not answered the same questions ({len(apart)} "
            f"differ, {apart[0]} among them); compare runs over the same questions."
        )
    if isinstance(benchmark, Judged):
        return _compare_verdicts(benchmark, questions, first_verdict, second_verdict)
    if any(question.truth is None for question in questions):
        return []
    verdicts = [
        tuple(benchmark.correct(q, run.answers[q.question_id]) for run in (first, second))
        for q in questions
    ]
    return _comparisons(
        benchmark.name,
        len(questions),
        benchmark.tallies(questions, first.answers),
        benchmark.tallies(questions, second.answers),
        verdicts.count((True, False)),
        verdicts.count((False, True)),
    )


def _verdict(folder: PathLike, run: BenchmarkRun) -> Verdict | None:
    if not isinstance(run.benchmark, Judged):
        return None
    return read_verdict(folder, run.benchmark.name, run.answers, run.questions)


def _compare_verdicts(
    benchmark: Judged,
    questions: Sequence[Question],
    first: Verdict | None,
    second: Verdict | None,
) -> list[Comparison]:
    if first is None or second is None or first.judge != second.judge:
        judges = " and ".join(v.judge if v else "nobody" for v in (first, second))
        note(
            f"{benchmark.name} is not compared: it was graded by {judges}; let one judge grade "
            "both runs (svit judge)."
        )
        return []
    # The answer's own number comes last: LLaVA-Bench's first is the reference's.
    pairs = [(first.grades[q.question_id][-1], second.grades[q.question_id][-1]) for q in questions]
    return _comparisons(
        benchmark.name,
        len(questions),
        benchmark.graded_tallies(questions, first.grades),
        benchmark.graded_tallies(questions, second.grades),
        sum(mine > theirs for mine, theirs in pairs),
        sum(mine < theirs for mine, theirs in pairs),
    )


def _comparisons(
    name: str,
    questions: int,
    before: Mapping[str, Tally],
    after: Mapping[str, Tally],
    only_first: int,
    only_second: int,
) -> list[Comparison]:
    return [
        Comparison(
            benchmark=name,
            figure=figure,
            questions=questions,
            first=before[figure].value,
            second=after[figure].value,
            difference=after[figure].value - before[figure].value,
            interval=bootstrap_difference(before[figure], after[figure], f"{name}/{figure}"),
            only_first=only_first,
            only_second=only_second,
            p_value=mcnemar(only_first, only_second),
        )
        for figure in before
    ]


COMPARISON_COLUMNS = (
    "Figure",
    "First",
    "Second",
    "Difference",
    "95 % interval",
    "Right in one alone",
    "McNemar p",
    "Questions",
)


def comparison_cells(comparison: Comparison) -> list[str]:
    """A comparison as the cells of a table."""
    c = comparison
    return [
        f"{c.benchmark} {c.figure}",
        f"{c.first:.2f}",
        f"{c.second:.2f}",
        f"{c.difference:+.2f}",
        f"{c.interval.low:+.2f} to {c.interval.high:+.2f}",
        f"{c.only_first} / {c.only_second}",
        f"{c.p_value:.3g}",
        f"{c.questions:,}",
    ]
