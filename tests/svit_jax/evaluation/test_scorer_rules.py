"""Scorers on any answers against the rules in the sheet's words, written down a second time."""

import re
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.mmbench import MMBench
from svit_jax.evaluation.mme import MME
from svit_jax.evaluation.pope import POPE
from svit_jax.evaluation.scienceqa import parse_letter


def mme_question(subtask: str, picture: int, number: int) -> Question:
    truth = {"picture": f"{picture}.png", "question": "?", "answer": ("Yes", "No")[number - 1]}
    key = f"{subtask}/{picture}.png#{number}"
    return Question(key, "?", None, truth, subtask, picture=f"{subtask}/{picture}")


ANSWERS = st.sampled_from(["yes", "no", "Yes.", "maybe"])


PAIRS = st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from(["count", "OCR", "code_reasoning"]), PAIRS, min_size=1))
def test_mme_adds_accuracy_and_accuracy_of_pictures(said: dict[str, list[tuple[str, str]]]) -> None:
    questions, answers, expected = [], {}, {}
    for subtask, pairs in said.items():
        for picture, pair in enumerate(pairs):
            for number, answer in enumerate(pair, start=1):
                questions.append(mme_question(subtask, picture, number))
                answers[questions[-1].question_id] = answer
        right = [(a[:3].lower() == "yes", b == "no") for a, b in pairs]
        accuracy = Fraction(sum(a + b for a, b in right), 2 * len(pairs))
        plus = Fraction(sum(a and b for a, b in right), len(pairs))
        expected[subtask] = float(100 * accuracy + 100 * plus)
    found = MME().score(questions, answers)
    assert all(abs(found[subtask] - value) < 1e-9 for subtask, value in expected.items())
    perception = sum(value for subtask, value in expected.items() if subtask != "code_reasoning")
    assert abs(found.get("perception", 0.0) - perception) < 1e-9
    assert abs(found.get("cognition", 0.0) - expected.get("code_reasoning", 0.0)) < 1e-9


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=6))
def test_mmbench_wants_every_rotation(circles: list[list[bool]]) -> None:
    questions, answers = [], {}
    for base, rotations in enumerate(circles):
        for turn, right in enumerate(rotations):
            truth = {"letter": "B", "options": {"A": "cat", "B": "dog"}}
            key = str(base + turn * 1_000_000)
            questions.append(Question(key, "?", None, truth, "kind"))
            answers[key] = "B" if right else "A"
    found = MMBench().score(questions, answers)
    whole = sum(all(rotations) for rotations in circles)
    assert abs(found["accuracy"] - 100 * whole / len(circles)) < 1e-9
    rows = [right for rotations in circles for right in rotations]
    assert abs(found["by_row"] - 100 * sum(rows) / len(rows)) < 1e-9


@given(st.lists(st.tuples(st.sampled_from(["random", "popular"]), st.booleans(), st.booleans()),
                min_size=1, max_size=12))  # fmt: skip
def test_pope_is_the_mean_of_the_splits_f1(rows: list[tuple[str, bool, bool]]) -> None:
    """From precision and recall, as the official script has it."""
    questions, answers = [], {}
    for number, (split, truth, said) in enumerate(rows):
        label = "yes" if truth else "no"
        questions.append(Question(f"{split}/{number}", "?", None, label, "existence"))
        answers[f"{split}/{number}"] = "Yes" if said else "No, it is not."
    figures = []
    for split in sorted({split for split, _, _ in rows}):
        pairs = [(truth, said) for name, truth, said in rows if name == split]
        hits = sum(truth and said for truth, said in pairs)
        precision = hits / max(1, sum(said for _, said in pairs))
        recall = hits / max(1, sum(truth for truth, _ in pairs))
        figures.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    expected = 100 * sum(figures) / len(figures)
    assert abs(POPE().score(questions, answers)["f1"] - expected) < 1e-9


PIECES = st.lists(
    st.sampled_from(["A", "B", "F", "a", ".", " ", "The answer is ", "the answer is ", "\n"])
).map("".join)


@given(PIECES)
def test_scienceqa_reads_three_forms_and_no_other(answer: str) -> None:
    hits = re.findall(r"The answer is ([A-Z])[^\n]", answer)
    if answer in ("A", "B", "C", "D", "E"):
        expected = answer
    elif len(answer) > 2 and answer[0] in "ABCDE" and answer[1] == "." and answer[2] == " ":
        expected = answer[0]
    else:
        expected = hits[0] if len(hits) == 1 else "FAILED"
    assert parse_letter(answer) == expected
