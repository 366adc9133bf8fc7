"""Intervals against closed forms, McNemar's test against a count of all outcomes, comparisons."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.cli import main
from svit_jax.evaluation.compare import compare_runs
from svit_jax.evaluation.intervals import (
    Tally,
    bootstrap,
    bootstrap_difference,
    make_tally,
    mcnemar,
    mean_tally,
)
from svit_jax.evaluation.judged import Judged
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.runner import run_benchmark
from svit_jax.evaluation.summary import BenchmarkRun

Z = 1.959964
NAMES = sorted(name for name, each in BENCHMARKS.items() if not isinstance(each, Judged))


def width(tally: Tally) -> float:
    found = bootstrap(tally, "test")
    assert found.low <= tally.value <= found.high
    return found.high - found.low


def test_the_interval_of_a_share_is_the_binomials() -> None:
    """1,000 draws know the ends of an interval to about 6 % of its half width."""
    for right, count in ((300, 1000), (900, 1000), (100, 400)):
        credits = [1.0] * right + [0.0] * (count - right)
        tally = mean_tally(credits, range(count))
        share = right / count
        normal = 2 * Z * 100 * math.sqrt(share * (1 - share) / count)
        assert tally.value == pytest.approx(100 * share)
        assert width(tally) == pytest.approx(normal, rel=0.12)


def test_questions_of_one_picture_count_as_one() -> None:
    """Five questions answered alike a picture: as sure as a fifth of the questions, no more."""
    credits = [float(picture % 2) for picture in range(400) for _ in range(5)]
    pictures = [picture for picture in range(400) for _ in range(5)]
    closed_form = 2 * Z * 100 * math.sqrt(0.25 / 400)
    assert width(mean_tally(credits, pictures)) == pytest.approx(closed_form, rel=0.12)
    alone = width(mean_tally(credits, range(2000)))
    assert alone == pytest.approx(closed_form / math.sqrt(5), rel=0.12)


def test_strata_keep_their_sizes() -> None:
    """Each stratum is all right or all wrong, so drawing within them changes nothing."""
    parts = [(1.0, 1.0)] * 10 + [(0.0, 1.0)] * 30
    figure = mean_tally([1.0], [0]).figure
    tally = make_tally(range(40), parts, figure, ["a"] * 10 + ["b"] * 30)
    found = bootstrap(tally, "strata")
    assert (found.low, found.high) == (25.0, 25.0)
    assert width(make_tally(range(40), parts, figure)) > 0


def test_the_same_name_gives_the_same_interval() -> None:
    tally = mean_tally([0.0, 1.0] * 50, range(100))
    assert bootstrap(tally, "a") == bootstrap(tally, "a")
    assert bootstrap(tally, "a") != bootstrap(tally, "b")


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    """Apart on 40 of 1,000 questions, 30 against 10: variance of a mean of -1, 0 and 1."""
    first = [1.0] * 500 + [0.0] * 500
    second = [1.0] * 490 + [0.0] * 10 + [1.0] * 30 + [0.0] * 470
    found = bootstrap_difference(
        mean_tally(first, range(1000)), mean_tally(second, range(1000)), "paired"
    )
    spread = math.sqrt((40 / 1000 - (20 / 1000) ** 2) / 1000)
    assert found.high - found.low == pytest.approx(2 * Z * 100 * spread, rel=0.12)
    assert found.low < 2.0 < found.high


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (3, 3), (1, 9), (7, 4)])
def test_mcnemar_counts_all_ways_to_be_as_uneven(b: int, c: int) -> None:
    outcomes = list(itertools.product((0, 1), repeat=b + c))
    uneven = sum(abs(2 * sum(o) - (b + c)) >= abs(b - c) for o in outcomes)
    assert mcnemar(b, c) == pytest.approx(uneven / len(outcomes))


def test_mcnemar_holds_for_many_questions() -> None:
    """Against the normal approximation with its continuity correction."""
    chi = (abs(5200 - 4800) - 1) / math.sqrt(10000)
    assert mcnemar(5200, 4800) == pytest.approx(math.erfc(chi / math.sqrt(2)), rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_tally_is_the_score(benchmarks: Path, name: str) -> None:
    benchmark = BENCHMARKS[name]
    questions = benchmark.read(benchmarks / name, None)
    truths = {q.question_id: benchmark.expected(q) for q in questions}
    for wrong in range(len(questions)):
        said = {**truths, questions[wrong].question_id: "wrong"}
        tallies = benchmark.tallies(questions, said)
        figures = benchmark.score(questions, said)
        assert tallies and {n: t.value for n, t in tallies.items()} == pytest.approx(
            {n: figures[n] for n in tallies}
        )
        for tally in tallies.values():
            assert np.isfinite(bootstrap(tally, name).low)


def test_two_runs_are_compared_question_by_question(benchmarks: Path) -> None:
    benchmark = BENCHMARKS["pope"]
    questions = benchmark.read(benchmarks / "pope", None)
    truths = {q.question_id: benchmark.expected(q) for q in questions}
    better = BenchmarkRun(benchmark, questions, truths)
    worse = BenchmarkRun(benchmark, questions, {q.question_id: "yes" for q in questions})
    (found,) = compare_runs(worse, better)
    assert (found.only_first, found.only_second) == (0, 2)
    assert found.p_value == pytest.approx(0.5)
    assert found.second == 100.0 and found.first == pytest.approx(200 / 3)
    fewer = BenchmarkRun(benchmark, questions, {"random/1": "yes"})
    with pytest.raises(UserError, match="not answered the same questions"):
        compare_runs(fewer, better)


def test_svit_compare_reads_what_svit_eval_wrote(
    benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gqa", "mmbench"):
        benchmark = BENCHMARKS[name]
        questions = benchmark.read(benchmarks / name, None)
        truths = [benchmark.expected(q) for q in questions]
        run_benchmark(benchmark, questions, lambda _, t=truths: iter(t), tmp_path / "a", "a")
        no = ["no"] * len(truths)
        run_benchmark(benchmark, questions, lambda _, t=no: iter(t), tmp_path / "b", "b")
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--data", str(benchmarks)]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "| gqa accuracy" in table and "-50.00" in table and "mmbench accuracy" in table
    assert main([*arguments, "--benchmark", "gqa", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["difference"] == -50.0 and row["only_first"] == 1
    assert main(["compare", str(tmp_path), str(tmp_path / "b"), "--data", str(benchmarks)]) == 1
    assert "no benchmark in common" in capsys.readouterr().err
