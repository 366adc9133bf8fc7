"""One honest number over benchmarks: exact match, with the picture and without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svit_jax.evaluation.benchmark import Benchmark, Question, answer_of


@dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark's questions, the answers by question id, and those given to an empty picture."""

    benchmark: Benchmark
    questions: Sequence[Question]
    answers: Mapping[str, str]
    blind: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Verdict:
    benchmark: str
    kind: str
    novel: bool
    open_ended: bool
    right: bool
    blind_right: bool | None


def summarise(
    runs: Sequence[BenchmarkRun], referring: BenchmarkRun | None = None
) -> dict[str, Any]:
    """The `heldout` part of `results.json`; every figure is a share (0..1), to four decimals.

    `with_image` and `blind` are exact match over all questions pooled: the benchmark's own parse
    of the answer, then equality with the truth (VQAv2: with the most common answer). `open_share`
    is the share of questions whose truth is neither yes nor no. `by_kind`, `by_benchmark` and
    `novel_combinations` hold the same two figures and their number of questions; questions about
    novel combinations count in the pool too. `referring_iou_50` is the share of referring answers
    with a right box. `blind` is None where a run has no blind answers.
    """
    verdicts = [verdict for run in runs for verdict in _verdicts(run)]
    novel = [verdict for verdict in verdicts if verdict.novel]
    return {
        **_figures(verdicts),
        "open_share": _share([verdict.open_ended for verdict in verdicts]),
        "by_kind": _grouped(verdicts, lambda verdict: verdict.kind),
        "by_benchmark": _grouped(verdicts, lambda verdict: verdict.benchmark),
        "novel_combinations": _figures(novel) if novel else None,
        "referring_iou_50": None
        if referring is None
        else _share([verdict.right for verdict in _verdicts(referring)]),
    }


def _verdicts(run: BenchmarkRun) -> list[_Verdict]:
    name = run.benchmark.name
    verdicts = []
    for question in run.questions:
        right = run.benchmark.correct(question, answer_of(question, run.answers, name))
        blind_right = None
        if run.blind is not None:
            blind_right = run.benchmark.correct(question, answer_of(question, run.blind, name))
        expected = run.benchmark.expected(question).lower()
        verdicts.append(
            _Verdict(
                benchmark=name,
                kind=question.kind,
                novel=question.novel,
                open_ended=expected not in ("yes", "no"),
                right=right,
                blind_right=blind_right,
            )
        )
    return verdicts


def _grouped(
    verdicts: Sequence[_Verdict], key: Callable[[_Verdict], str]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[_Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(key(verdict), []).append(verdict)
    return {name: _figures(members) for name, members in sorted(groups.items())}


def _figures(verdicts: Sequence[_Verdict]) -> dict[str, Any]:
    blind = [verdict.blind_right for verdict in verdicts if verdict.blind_right is not None]
    return {
        "with_image": _share([verdict.right for verdict in verdicts]),
        "blind": _share(blind) if len(blind) == len(verdicts) else None,
        "questions": len(verdicts),
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
