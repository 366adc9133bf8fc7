"""MMBench's TSV as published, LLaVA's prompts, the matching of answers, circular evaluation."""

import base64
import csv
import io
from itertools import product
from pathlib import Path

import openpyxl
import pytest
from PIL import Image

from data_pipeline.common.errors import UserError
from svit_jax.evaluation import mmbench
from svit_jax.evaluation.answers import read_answers
from svit_jax.evaluation.mmbench import MMBench, extract_letter
from svit_jax.evaluation.registry import BENCHMARKS

FILE = "mmbench_dev_20230712.tsv"
TRUTH = {
    "7": "A",
    "1000007": "B",
    "2000007": "C",
    "3000007": "D",
    "241": "A",
    "1000241": "B",
}


def _edit(path: Path, line: int, column: str, value: str) -> None:
    limit = csv.field_size_limit(1 << 28)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, dialect="excel-tab"))
    csv.field_size_limit(limit)
    rows[line][rows[0].index(column)] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, dialect="excel-tab").writerows(rows)


def test_prompts_are_llavas(benchmarks: Path) -> None:
    questions = MMBench().read(benchmarks / "mmbench", None)
    assert [q.question_id for q in questions] == list(TRUTH)
    assert questions[1].text == (
        'Look\ntwice.\nWhich "one"?\nA. fox\nB. cow\nC. dog\nD. emu\n'
        "Answer with the option's letter from the given choices directly."
    )
    assert questions[4].text == (
        "Is it wet?\nA. wet\nB. dry\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert {q.question_id: BENCHMARKS["mmbench"].expected(q) for q in questions} == TRUTH
    chinese = BENCHMARKS["mmbench_cn"].read(benchmarks / "mmbench_cn", None)
    assert chinese[4].text == "Is it wet?\nA. wet\nB. dry\n请直接回答选项字母。"


def test_pictures_are_unpacked_once_and_rotations_share_them(
    benchmarks: Path, images: Path
) -> None:
    questions = MMBench().read(benchmarks / "mmbench", images)
    pictures = [q.image for q in questions]
    folder = images / "mmbench_dev_20230712"
    assert pictures == [folder / "7.png"] * 4 + [folder / "241.png"] * 2
    with Image.open(folder / "7.png") as picture:
        assert picture.size == (240, 240)
    before = (folder / "7.png").stat().st_mtime_ns
    (folder / "241.png").write_bytes(b"cut off")
    assert [q.image for q in MMBench().read(benchmarks / "mmbench", images)] == pictures
    assert (folder / "7.png").stat().st_mtime_ns == before
    assert (folder / "241.png").read_bytes() == (folder / "7.png").read_bytes()


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. dog", "B"),
        ("The answer is B.", "B"),
        ("b", None),
        ("A or B", None),
        # Five words from the end: too far from it, and the text is too long to be matched.
        ("B is what I see in here", None),
        ("B is what I see", None),
        ("So B it is then", "B"),
        ("The dog", "B"),
        ("a DOG and a cow", None),
        ("dog " * 7, None),
        ("dog " * 6, "B"),
        ("dog Z", None),
        ("Cannot determine the answer: B", None),
        ("", None),
    ],
)
def test_answers_are_matched_by_letter_then_by_text(answer: str, letter: str | None) -> None:
    options = {"A": "cow", "B": "dog", "C": "emu", "D": "fox"}
    assert extract_letter(answer, options) == letter


def test_a_question_counts_only_if_all_its_rotations_are_right(benchmarks: Path) -> None:
    questions = MMBench().read(benchmarks / "mmbench", None)
    for pattern in product([True, False], repeat=6):
        replies = {
            key: truth if right else "E"
            for (key, truth), right in zip(TRUTH.items(), pattern, strict=True)
        }
        four, two = all(pattern[:4]), all(pattern[4:])
        assert MMBench().score(questions, replies) == pytest.approx(
            {
                "accuracy": 50.0 * (four + two),
                "by_row": 100.0 * sum(pattern) / 6,
                "category/identity": 100.0 * four,
                "category/physical": 100.0 * two,
            }
        )


def test_a_constant_answer_gets_nothing(benchmarks: Path) -> None:
    questions = MMBench().read(benchmarks / "mmbench", None)
    figures = MMBench().score(questions, dict.fromkeys(TRUTH, "A"))
    assert figures["accuracy"] == 0.0
    assert figures["by_row"] == pytest.approx(100 * 2 / 6)


@pytest.mark.parametrize("empty", ["", "nan", "None", "NA", "NONE"])
def test_options_end_at_the_first_empty_one(benchmarks: Path, empty: str) -> None:
    _edit(benchmarks / "mmbench" / FILE, 1, "C", empty)
    first = MMBench().read(benchmarks / "mmbench", None)[0]
    assert "\nB. dog\nAnswer with" in first.text


def test_a_test_file_without_answers_is_for_upload_only(benchmarks: Path) -> None:
    path = benchmarks / "mmbench" / FILE
    for line in range(1, 7):
        _edit(path, line, "answer", "")
    questions = MMBench().read(benchmarks / "mmbench", None)
    assert [q.truth for q in questions] == [None] * 6
    with pytest.raises(UserError, match="no public answer"):
        MMBench().score(questions, TRUTH)


COLUMNS = ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
SAID = {"7": "A", "1000007": 'B.\n"yes"\x02', "2000007": "=1+1"}


def test_the_upload_is_a_workbook_with_llavas_columns(benchmarks: Path, tmp_path: Path) -> None:
    questions = MMBench().read(benchmarks / "mmbench", None)
    ((name, content),) = MMBench().submission(questions, SAID).items()
    assert name == "mmbench_upload.xlsx" and isinstance(content, bytes)
    sheet = openpyxl.load_workbook(io.BytesIO(content)).active
    rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    assert rows[0] == COLUMNS
    assert rows[1] == [7, 'Which "one"?', "cow", "dog", "emu", "fox", "A", "A", "dev"]
    assert rows[2][6] == 'B.\n"yes"'
    assert (rows[3][6], sheet["G4"].data_type) == ("=1+1", "s")
    assert (len(rows), rows[5][6]) == (7, None)
    (tmp_path / name).write_bytes(content)
    assert read_answers(tmp_path / name, questions)["1000007"] == rows[2][6]


def test_without_openpyxl_the_upload_is_a_tsv_and_says_so(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mmbench, "has_xlsx", lambda: False)
    questions = MMBench().read(benchmarks / "mmbench", None)
    upload = MMBench().submission(questions, SAID)["mmbench_upload.tsv"]
    assert isinstance(upload, str)
    rows = list(csv.reader(io.StringIO(upload), dialect="excel-tab"))
    assert rows[0] == COLUMNS
    assert rows[1] == ["7", 'Which "one"?', "cow", "dog", "emu", "fox", "A", "A", "dev"]
    assert (len(rows), rows[5][6]) == (7, "")
    assert "the server takes xlsx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "column", "value", "message"),
    [
        (2, "image", "99", r"line 5: its picture is that of row '99'"),
        (1, "image", "?" * 80, r"its picture is not valid base64"),
        (1, "answer", "E", r"the answer 'E' is none of A, B, C, D"),
        (1, "index", "x7", r"expected a number as its index"),
        (1, "B", "", r"two options or more, found '7' and 1"),
        (0, "question", "frage", r"the field 'question' is missing"),
    ],
)
def test_what_is_wrong_with_the_file_is_named(
    benchmarks: Path, images: Path, line: int, column: str, value: str, message: str
) -> None:
    _edit(benchmarks / "mmbench" / FILE, line, column, value)
    with pytest.raises(UserError, match=message):
        MMBench().read(benchmarks / "mmbench", images)


def test_the_fixtures_picture_is_longer_than_csv_allows_by_itself(benchmarks: Path) -> None:
    text = (benchmarks / "mmbench" / FILE).read_text(encoding="utf-8")
    picture = max(text.split("\t"), key=len)
    assert len(picture) > 131_072
    assert base64.b64decode(picture).startswith(b"\x89PNG")
