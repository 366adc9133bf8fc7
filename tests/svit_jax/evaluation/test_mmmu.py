"""MMMU's layouts, prompts, parses and figures: the sheet's vectors, closed forms, brute force."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.mmmu import DISCIPLINES, MMMU, MMMUQuestion
from svit_jax.evaluation.mmmu_parsing import open_is_right, parse_choice, parse_open

OPTIONS = ["Paul Klee", "Joan Miró", "Both of them", "None"]
MUSIC, MATH, ART = "validation_Music_1", "validation_Math_2", "validation_Art_Theory_3"


@pytest.fixture
def folder(benchmarks: Path) -> Path:
    return benchmarks / "mmmu"


@pytest.fixture
def many() -> list[MMMUQuestion]:
    """400 questions with four options each, the four answers equally often."""
    return [
        MMMUQuestion(f"validation_Math_{i}", "", None, "ABCD"[i % 4], "Math", options=OPTIONS)
        for i in range(400)
    ]


def test_subjects_come_in_the_official_order_with_the_official_prompts(folder: Path) -> None:
    art, math, music = MMMU().read(folder, None)
    assert [art.question_id, math.question_id, music.question_id] == [ART, MATH, MUSIC]
    assert music.text == (
        "Which note is in <image 1>?\n(A) C\n(B) D's flat\n(C) E\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert math.text == ("Find x in <image 1>.\nAnswer the question using a single word or phrase.")
    assert (art.kind, art.truth, math.truth) == ("Art_Theory", "A", ["1/64", "0.016"])


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A or B", "B"),
        ("The option A is wrong, B is right", "B"),
        ("(A) no, (B) yes", "B"),
        ("B.", "B"),
        ("(D)", "D"),
        ("A B (C) D", "C"),
        ("b", None),
        ("Paul Klee", None),
        ("I think that it was paul klee", "A"),
        ("It was not Paul Klee but Joan Miró", "B"),
        ("B.'", None),
        ("", None),
    ],
)
def test_choices_are_parsed_as_the_official_script_does(response: str, letter: str | None) -> None:
    assert parse_choice(response, OPTIONS) == letter


@pytest.mark.parametrize(
    ("response", "values"),
    [
        ("x = 1,234.5", {1234.5, 1234.0, 234.5}),
        ("1.06e3", {1.0, 1060.0, 3.0}),
        ("So the final result is 1/64", {"1/64", 1.0, 64.0}),
        ("First it is 5.\nTherefore the answer is 7.", {5.0, 7.0}),
        ("It is a.", {" a", "a "}),
        ("x = 1\nit is red", {"red"}),
        ("3.14159", {3.14}),
        ("-2.5 volts", {"-2.5 volts", -2.5}),
    ],
)
def test_open_answers_mean_what_the_official_script_finds(response: str, values: set) -> None:
    assert parse_open(response) == values


@pytest.mark.parametrize(
    ("response", "truths", "right"),
    [
        ("It is 0.0163", ["1/64", "0.016"], True),
        ("The answer is 1/64 of it", ["1/64", "0.016"], True),
        ("64", ["1/64", "0.016"], False),
        ("a dark red house", ["red"], True),
        ("reddish", ["Red"], True),
        ("cat", ["a"], False),
        ("It is a.", ["a"], True),
        ("about 5,000", ["5000"], True),
    ],
)
def test_open_answers_are_judged_by_containment_or_number(
    response: str, truths: list[str], right: bool
) -> None:
    assert open_is_right(parse_open(response), truths) is right


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["(A)", "(B)", "A", "B", "no", "joan miró", "none"]), max_size=8))
def test_a_choice_is_the_last_of_the_best_kind(words: list[str]) -> None:
    """Brute force over words, where the script works on characters."""
    bracketed = [word[1] for word in words if word.startswith("(")]
    spaced = [word for word in words if word in "AB"]
    texts = [option for word in words for option in OPTIONS if word == option.lower()]
    expected = (bracketed or spaced or [None])[-1]
    if expected is None and len(" ".join(words).split()) > 5 and texts:
        expected = "ABCD"[OPTIONS.index(texts[-1])]
    assert parse_choice(" ".join(words), OPTIONS) == expected


def test_the_truth_scores_the_maximum_everywhere(folder: Path) -> None:
    questions = MMMU().read(folder, None)
    figures = MMMU().score(questions, {q.question_id: MMMU().expected(q) for q in questions})
    assert set(figures.values()) == {100.0}
    assert set(figures) == {
        "accuracy",
        "accuracy_without_draws",
        "Art and Design",
        "Science",
        "Music",
        "Math",
        "Art_Theory",
    }
    assert sum(len(subjects) for subjects in DISCIPLINES.values()) == 30


def test_disciplines_weigh_questions_and_not_subjects() -> None:
    def ask(name: str, count: int) -> list[MMMUQuestion]:
        return [
            MMMUQuestion(f"validation_{name}_{i}", "", None, "A", name, options=OPTIONS)
            for i in range(count)
        ]

    questions = [*ask("Art", 1), *ask("Music", 3), *ask("Math", 4)]
    said = {q.question_id: "A" if q.kind == "Music" else "B" for q in questions}
    figures = MMMU().score(questions, said)
    assert (figures["Art and Design"], figures["Science"], figures["accuracy"]) == (75.0, 0.0, 37.5)
    assert (figures["Art"], figures["Music"], figures["Math"]) == (0.0, 100.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [(lambda i: "B", 25.0, 25.0), (lambda i: random.Random(i).choice("ABCD"), 17.0, 33.0)],
    ids=["constant", "shuffled"],
)
def test_guessing_scores_chance(
    many: list[MMMUQuestion], answer: Callable[[int], str], low: float, high: float
) -> None:
    """Four standard errors of 400 throws at a quarter are 8.7 points."""
    figures = MMMU().score(many, {q.question_id: answer(i) for i, q in enumerate(many)})
    assert low <= figures["accuracy"] <= high
    assert figures["accuracy"] == figures["accuracy_without_draws"]


def test_answers_without_a_choice_are_drawn_with_the_official_seed(
    many: list[MMMUQuestion],
) -> None:
    said = {q.question_id: "A" if i % 2 else "hm" for i, q in enumerate(many)}
    random.seed(42)
    drawn = ["A" if i % 2 else random.choice(["A", "B", "C", "D"]) for i in range(len(many))]
    right = sum(a == q.truth for a, q in zip(drawn, many, strict=True))
    figures = MMMU().score(many, said)
    assert figures["accuracy"] == pytest.approx(100 * right / 400)
    assert figures["accuracy_without_draws"] == 0.0
    upload = json.loads(MMMU().submission(many, said)["mmmu_results.json"])
    assert list(upload.values()) == drawn


def test_the_test_split_is_for_upload_only(tmp_path: Path) -> None:
    base = {"question": "?", "answer": "?"}
    closed = {**base, "question_type": "multiple-choice", "options": ["x", "y"]}
    rows = [
        {**closed, "id": "test_Math_1"},
        {**base, "id": "test_Math_2", "question_type": "open", "options": []},
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    questions = MMMU().read(tmp_path, None)
    said = {"test_Math_1": "(B) y", "test_Math_2": "About 5."}
    with pytest.raises(UserError, match="no public answer"):
        MMMU().score(questions, said)
    upload = MMMU().submission(questions, said)["mmmu_results.json"]
    assert json.loads(upload) == {"test_Math_1": "B", "test_Math_2": "About 5."}


def test_parquet_is_read_as_released_and_its_pictures_are_unpacked(
    folder: Path, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    png = io.BytesIO()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(png, "PNG")
    picture = {"bytes": png.getvalue(), "path": "x.png"}
    rows = json.loads((folder / "validation.json").read_text())
    for row in rows:
        subject = "_".join(row["id"].split("_")[1:-1])
        path = tmp_path / "release" / subject / "validation-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        more = {"explanation": "", "image_1": picture, "image_2": None, "subfield": "x"}
        parquet.write_table(pyarrow.Table.from_pylist([{**row, **more}]), path)
    unpacked = tmp_path / "unpacked"
    questions = MMMU().read(tmp_path / "release", unpacked)
    assert [q.image for q in questions] == [unpacked / f"{i}.png" for i in (ART, MATH, MUSIC)]
    assert Image.open(questions[0].image).getpixel((0, 0)) == (1, 2, 3)
    told = [(q.question_id, q.text, q.truth) for q in MMMU().read(folder, None)]
    assert [(q.question_id, q.text, q.truth) for q in questions] == told
    assert all(q.image is None for q in MMMU().read(tmp_path / "release", None))
    path.write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match="is no parquet file"):
        MMMU().read(tmp_path / "release", None)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("[0, 1]", ["[0, 1]"]), ("['a', \"b's\"]", ["a", "b's"]), (["x"], ["x"]), ("5", ["5"])],
)
def test_an_open_question_has_one_truth_or_a_list(
    folder: Path, answer: str | list[str], truth: list[str]
) -> None:
    path = folder / "validation.json"
    path.write_text(json.dumps([{**json.loads(path.read_text())[1], "answer": answer}]))
    assert MMMU().read(folder, None)[0].truth == truth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "A, B"}, "MMMU question validation_Music_1: expected a list, found 'A, B'"),
        ({"options": "[]"}, "multiple-choice, but has no options"),
        ({"answer": "Z"}, "its answer 'Z' is none of A, B, C"),
    ],
)
def test_broken_rows_are_named(folder: Path, change: dict, message: str) -> None:
    path = folder / "validation.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**rows[0], **change}]))
    with pytest.raises(UserError, match=message):
        MMMU().read(folder, None)
