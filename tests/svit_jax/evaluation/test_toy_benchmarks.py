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
