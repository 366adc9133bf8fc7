"""Files of predictions made by hand, counted as the official scripts count them, and strictly."""

import json
import re
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.common.errors import UserError
from svit_jax.cli import main
from svit_jax.evaluation import mme, pope
from svit_jax.evaluation.benchmark import Question
from svit_jax.evaluation.choices import first_yes_or_no, named_letter
from svit_jax.evaluation.mmbench import MMBench
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.scoring import score_file
from svit_jax.evaluation.unanswered import settle
from svit_jax.evaluation.vqa_accuracy import strict_accuracy, strict_normalise


def lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MME_PICTURES = {
    "count": ("a.png", "b.png"),
    "posters": ("p.jpg",),
    "code_reasoning": ("c.png",),
}


def mme_results(folder: Path, answers: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for subtask, said in answers.items():
        pictures = {
            "count": ("a.png", "b.png"),
            "posters": ("p.jpg",),
            "code_reasoning": ("c.png",),
        }
        rows = [
            (picture, question, truth)
            for picture in pictures[subtask]
            for question, truth in (
                ("Is there one ball? Please answer yes or no.", "Yes"),
                ("Are there two balls?  Please answer yes or no.", "No"),
            )
        ]
        text = "".join("\t".join((*row, text)) + "\n" for row, text in zip(rows, said, strict=True))
        (folder / f"{subtask}.txt").write_text(text)
    return folder


def test_mme_folders_are_scored(benchmarks: Path, tmp_path: Path) -> None:
    said = {
        "count": ["Yes, one.", "no", "Know", "NO"],
        "posters": ["yes", "Yes"],
        "code_reasoning": ["maybe", "No."],
    }
    folder = mme_results(tmp_path / "results", said)
    found = score_file("mme", benchmarks / "mme", folder, strict=True)
    # count: 3 of 4 right, 1 of 2 pictures; posters: 1 of 2, none; code: 1 of 2, none.
    assert found.official["count"] == 75 + 50
    assert found.official["perception"] == 75 + 50 + 50
    assert found.official["cognition"] == 50
    # "Know" is officially a no for the picture's yes; strictly it is neither: wrong both times.
    assert found.strict == found.official and found.notes == ()


def test_mme_pairs_are_lines_officially_and_pictures_strictly() -> None:
    def question(picture: str, answer: str, number: int) -> Question:
        truth = {"picture": picture, "question": "?", "answer": answer}
        return Question(f"count/{picture}#{number}", "?", None, truth, "count")

    # Interleaved: the pairs of lines are (a, b) and (a, b).
    rows = [question(p, a, n) for n, a in ((1, "Yes"), (2, "No")) for p in ("a", "b")]
    answers = dict(zip([q.question_id for q in rows], ["yes", "yes", "yes", "yes"], strict=True))
    assert mme.MME().score(rows, answers)["count"] == 50 + 50
    assert mme.MME().score(rows, answers, strict=True)["count"] == 50 + 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png\tIs it?\tYes\n", r"count\.txt, line 1: expected picture, .*found 3 cells"),
        ("a.png\tIs it?\tNo\tYes\n", r"calls 'No' the truth where the questions say 'Yes'"),
        ("z.png\tIs it?\tNo\tYes\n", "no answer to any of the 8 questions"),
    ],
)
def test_malformed_mme_files_are_named(
    benchmarks: Path, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "count.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        score_file("mme", benchmarks / "mme", tmp_path, strict=False)


def test_pope_answers_count_by_position(benchmarks: Path, tmp_path: Path) -> None:
    """Truths are yes, no, yes, no; the file swaps the middle two rows and lacks the last."""
    texts = [f"Is there a thing {i} in the image?" for i in (0, 2, 1)]
    rows = [{"question": q, "answer": a} for q, a in zip(texts, ["Yes", "yes", "No"], strict=True)]
    path = lines(tmp_path / "answers.jsonl", rows)
    found = score_file("pope", benchmarks / "pope", path, strict=True)
    assert found.official["accuracy"] == pytest.approx(100 / 3)
    assert found.official["yes_ratio"] == pytest.approx(200 / 3)
    assert found.strict is not None and found.strict["accuracy"] == 25.0
    assert "1 of 4 questions have no answer (random/4): left out" in found.notes[0]
    assert "3 of 4 questions have no answer" in found.notes[1]
    named = lines(tmp_path / "folder" / "coco_pope_random_answers.json", rows)
    again = score_file("pope", benchmarks / "pope", named.parent, strict=False)
    assert again.official == found.official
    assert len(again.quirks) == 2


def test_shuffled_pope_answers_of_our_own_are_scored_as_they_stand(
    benchmarks: Path, tmp_path: Path
) -> None:
    said = {1: "yes", 2: "no", 3: "yes", 4: "no"}
    rows = [{"question_id": f"random/{n}", "text": said[n]} for n in (2, 1, 3, 4)]
    path = lines(tmp_path / "answers.jsonl", rows)
    found = score_file("pope", benchmarks / "pope", path, strict=True)
    assert found.official["accuracy"] == 50.0
    assert found.strict is not None and found.strict["accuracy"] == 100.0


def test_a_split_that_no_file_names_is_asked_for(benchmarks: Path, tmp_path: Path) -> None:
    folder = benchmarks / "pope"
    text = (folder / "coco_pope_random.json").read_text()
    (folder / "coco_pope_popular.json").write_text(text)
    path = lines(tmp_path / "answers.jsonl", [{"question": "?", "answer": "yes"}])
    with pytest.raises(UserError, match="put one of random, popular into the file's name"):
        score_file("pope", folder, path, strict=False)


def test_mmbench_tables_are_read_from_xlsx(benchmarks: Path, tmp_path: Path) -> None:
    letters = {7: "A", 1_000_007: "B", 2_000_007: "C", 3_000_007: "D", 241: "A", 1_000_241: "B"}
    book = openpyxl.Workbook()
    book.active.append(["index", "question", "prediction"])
    for index, letter in letters.items():
        if index != 1_000_241:
            book.active.append([index, "?", None if index == 241 else letter])
    path = tmp_path / "upload.xlsx"
    book.save(path)
    found = score_file("mmbench", benchmarks / "mmbench", path, strict=False)
    assert found.official["accuracy"] == 50.0
    assert found.official["by_row"] == pytest.approx(100 * 4 / 6)
    assert "(1000241): counted as wrong" in found.notes[0]
    path.write_bytes(b"no workbook")
    with pytest.raises(UserError, match="are no xlsx file"):
        score_file("mmbench", benchmarks / "mmbench", path, strict=False)


@pytest.mark.parametrize(
    ("name", "figure", "expected"),
    [
        ("scienceqa", "accuracy", 100 * 2 / 3),
        ("seedbench", "accuracy", 75.0),
        ("mmbench", "by_row", 100 * 5 / 6),
        ("pope", "accuracy", 100.0),
        ("textvqa", "accuracy", 100.0),
        ("mmmu", "accuracy", 100.0),
        ("vqav2", "accuracy", None),
        ("gqa", "accuracy", None),
        ("vizwiz", "accuracy", None),
        ("mme", "perception", None),
    ],
)
def test_what_an_answer_missing_at_the_end_costs(
    benchmarks: Path, name: str, figure: str, expected: float | None
) -> None:
    """Every other answer is right; None: the official script refuses such a file."""
    benchmark = BENCHMARKS[name]
    questions = benchmark.read(benchmarks / name, None)
    answers = {q.question_id: benchmark.expected(q) for q in questions[:-1]}
    if expected is None:
        with pytest.raises(UserError, match="which the official script refuses"):
            settle(name, questions, answers)
    else:
        settled = settle(name, questions, answers)
        found = benchmark.score(settled.questions, settled.answers)
        assert found[figure] == pytest.approx(expected)
        assert questions[-1].question_id in settled.note
    settled = settle(name, questions, answers, strict=True)
    found = benchmark.score(settled.questions, settled.answers, strict=True)
    assert min(found.values()) < 100.0


@pytest.mark.parametrize(
    ("name", "said", "official", "strict"),
    [
        ("gqa", {"g1": "blue,", "g2": " No."}, 0.0, 100.0),
        ("scienceqa", {"11": "a", "7": "E.", "4": "(B)"}, 0.0, 100.0),
        ("seedbench", {"101": "b", "102": "A.", "103": "D. 4", "9": "C"}, 25.0, 100.0),
        ("mmmu", {"validation_Music_1": "B", "validation_Math_2": "1/640",
                  "validation_Art_Theory_3": "A"}, 100.0, 200 / 3),
        ("pope", {f"random/{n}": a for n, a in enumerate(("Yes", "NO", "maybe", "No"), 1)},
         75.0, 75.0),
        ("vqav2", {"7": "the red.", "8": "Yes!"}, 100.0, 100.0),
    ],
)  # fmt: skip
def test_strict_scoring_reads_what_a_reader_would(
    benchmarks: Path, name: str, said: dict[str, str], official: float, strict: float
) -> None:
    benchmark = BENCHMARKS[name]
    questions = benchmark.read(benchmarks / name, None)
    assert benchmark.score(questions, said)["accuracy"] == pytest.approx(official)
    assert benchmark.score(questions, said, strict=True)["accuracy"] == pytest.approx(strict)


def test_incomplete_circles_count_strictly_as_incomplete(benchmarks: Path) -> None:
    questions = MMBench().read(benchmarks / "mmbench", None)
    kept = [q for q in questions if q.question_id not in ("1000241", "2000241")]
    answers = {q.question_id: q.truth["letter"].lower() for q in kept}
    figures = MMBench().score(kept, answers, strict=True)
    assert figures["accuracy"] == 100.0 and figures["incomplete_circles"] == 1.0
    alone = [q for q in kept if q.question_id == "241"]
    assert "accuracy" not in MMBench().score(alone, answers, strict=True)
    assert MMBench().score(alone, {"241": "A"})["accuracy"] == 100.0


def test_periods_without_end_are_strictly_deleted() -> None:
    many = ". ".join(["a"] * 40) + " cat."
    assert strict_normalise(many) == "cat"
    assert strict_normalise("The cat's 3.5 t-shirts, 1,000 of them!") == (
        "cat's 3.5 t shirts 1000 of them"
    )
    assert strict_accuracy("the", ["a"] * 10) == 0.0


def official_pope(text: str) -> str:
    """The rule in the sheet's words."""
    sentence = text[: text.index(".")] if "." in text else text
    words = "".join(letter for letter in sentence if letter != ",").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def official_mme(text: str) -> str:
    lowered = text.lower()
    if lowered in ("yes", "no"):
        return lowered
    head = lowered[0:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


WORDS = st.lists(
    st.sampled_from(["yes", "no", "No", "NO", "not", "isn't", "know", "eyes", ",", ".", " ", "a"])
).map("".join)


@given(WORDS)
def test_yes_no_parsers_follow_the_rules(text: str) -> None:
    assert pope.parse_yes_no(text) == official_pope(text)
    assert mme.parse_yes_no(text) == official_mme(text)


@given(WORDS)
def test_a_plain_yes_or_no_is_the_first_such_word(text: str) -> None:
    words = re.findall(r"[a-z']+", text.lower())
    said = [w for w in words if w in ("yes", "no", "not") or w.endswith("n't")]
    expected = "other" if not said else "yes" if said[0] == "yes" else "no"
    assert first_yes_or_no(text) == expected


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("b", "B"), ("(C)", "C"), ("D. red", "D"), (" a: x", "A"),
     ("The answer is B", "B"), ("A dog", None), ("E", None), ("", None), ("Because", None),
     ("answer is: (A)", "A")],
)  # fmt: skip
def test_letters_are_read_plainly(answer: str, letter: str | None) -> None:
    assert named_letter(answer, 4) == letter


def test_svit_score_names_quirks_and_what_is_missing(
    benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "a.jsonl", [{"question_id": "g1", "prediction": "blue"}])
    arguments = ["score", "--benchmark", "gqa", "--predictions", str(path)]
    arguments += ["--data", str(benchmarks / "gqa")]
    assert main(arguments) == 1
    assert "1 of 2 questions have no answer (g2)" in capsys.readouterr().err
    assert main([*arguments, "--strict"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("gqa, strict: accuracy 50.00")
    assert "quirk of the official scoring: Of an answer only periods" in printed.out
    assert "which the official script refuses" in printed.err
    assert main([*arguments, "--strict", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["strict"]["accuracy"] == 50.0 and result["official"] == {}
