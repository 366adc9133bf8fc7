"""TextVQA, VizWiz and MMMU of the toy world: the truth gets all, a constant what theory says."""

import random
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.toy_world.generate import generate_world
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.registry import BENCHMARKS

NAMES = ("textvqa", "vizwiz", "mmmu")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    report = generate_world(root, train_scenes=1, held_out_scenes=300, novel_scenes=20, seed=3)
    assert {name: report.benchmark_questions[name] for name in NAMES} == dict.fromkeys(NAMES, 320)
    return root / "held_out"


def read(held_out: Path, name: str) -> list[Question]:
    return BENCHMARKS[name].read(held_out / "benchmarks" / name, held_out / "images")


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answerer_gets_the_maximum(held_out: Path, name: str) -> None:
    questions = read(held_out, name)
    assert all(q.image is not None and q.image.is_file() for q in questions)
    truths = {q.question_id: BENCHMARKS[name].expected(q) for q in questions}
    assert set(BENCHMARKS[name].score(questions, truths).values()) == {100.0}


def test_a_constant_word_gets_the_share_of_its_questions(held_out: Path) -> None:
    colours = read(held_out, "textvqa")
    red = sum(set(q.truth) == {"red"} for q in colours)
    figures = BENCHMARKS["textvqa"].score(colours, {q.question_id: "Red." for q in colours})
    assert red > 0
    assert figures == pytest.approx({"accuracy": 100 * red / 320})


def test_a_cautious_constant_gets_every_fourth_question(held_out: Path) -> None:
    questions = read(held_out, "vizwiz")
    figures = BENCHMARKS["vizwiz"].score(
        questions, {q.question_id: "Unanswerable" for q in questions}
    )
    assert figures == {"accuracy": 25.0, "unanswerable": 100.0, "other": 0.0, "number": 0.0}


def test_a_constant_letter_gets_a_quarter_of_the_closed_questions(held_out: Path) -> None:
    questions = read(held_out, "mmmu")
    figures = BENCHMARKS["mmmu"].score(questions, {q.question_id: "C" for q in questions})
    for subject, kind in (("Art", "color"), ("Math", "shape"), ("Geography", "position")):
        count = sum(q.kind == kind for q in questions)
        assert figures[subject] == pytest.approx(25.0, abs=100 / count)
    assert figures["Accounting"] == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_truths_get_what_chance_gives(held_out: Path, name: str) -> None:
    """Answers that occur n_i times among n: a shuffle hits a share of sum(n_i^2) / n^2 on average,
    with a standard error below 2.3 points here; nine points are four of them."""
    questions = read(held_out, name)
    truths = [BENCHMARKS[name].expected(q) for q in questions]
    chance = sum(count**2 for count in Counter(truths).values()) / len(truths) ** 2
    random.Random(0).shuffle(truths)
    said = {q.question_id: truth for q, truth in zip(questions, truths, strict=True)}
    accuracy = BENCHMARKS[name].score(questions, said)
    plain = "accuracy_without_draws" if name == "mmmu" else "accuracy"
    assert accuracy[plain] == pytest.approx(100 * chance, abs=9.0)


FIRST = ("vqav2", "gqa", "mme", "pope", "referring")


@pytest.mark.parametrize("name", FIRST)
def test_the_first_benchmarks_give_the_truth_the_maximum(held_out: Path, name: str) -> None:
    benchmark, questions = BENCHMARKS[name], read(held_out, name)
    found = benchmark.score(questions, {q.question_id: benchmark.expected(q) for q in questions})
    if name == "mme":
        assert found["perception"] == found["perception_maximum"] == 800.0
    elif name == "pope":
        assert found["f1"] == found["accuracy"] == 100.0
    else:
        assert set(found.values()) == {100.0}


def test_a_constant_yes_scores_as_theory_says(held_out: Path) -> None:
    """MME asks of each picture one yes and one no: half the questions, no picture. Of POPE's
    answers a share p is yes: recall 1 and precision p."""
    questions = read(held_out, "mme")
    found = BENCHMARKS["mme"].score(questions, {q.question_id: "Yes" for q in questions})
    assert found["perception"] == 4 * 50.0
    questions = read(held_out, "pope")
    share = sum(q.truth == "yes" for q in questions) / len(questions)
    found = BENCHMARKS["pope"].score(questions, {q.question_id: "Yes" for q in questions})
    assert found["f1"] == pytest.approx(100 * 2 * share / (1 + share))
    assert found["accuracy"] == pytest.approx(100 * share) and found["yes_ratio"] == 100.0


@pytest.mark.parametrize("name", ["vqav2", "gqa"])
def test_a_constant_word_gets_its_share_of_open_questions(held_out: Path, name: str) -> None:
    benchmark, questions = BENCHMARKS[name], read(held_out, name)
    red = sum(benchmark.expected(q) == "red" for q in questions)
    assert red > 0
    found = benchmark.score(questions, {q.question_id: "Red." for q in questions})
    assert found["accuracy"] == pytest.approx(100 * red / len(questions))


@pytest.mark.parametrize("name", FIRST[:-1])
def test_shuffled_truths_of_the_first_benchmarks_hit_by_chance(held_out: Path, name: str) -> None:
    """As above; a permutation's standard error is below sqrt(p (1 - p) / n), and 4.5 of them are
    allowed."""
    benchmark, questions = BENCHMARKS[name], read(held_out, name)
    truths = [benchmark.expected(q) for q in questions]
    chance = sum(count**2 for count in Counter(truths).values()) / len(truths) ** 2
    random.Random(1).shuffle(truths)
    pairs = zip(questions, truths, strict=True)
    right = sum(benchmark.correct(question, truth) for question, truth in pairs)
    error = 4.5 * (chance * (1 - chance) / len(questions)) ** 0.5
    assert right / len(questions) == pytest.approx(chance, abs=error)
