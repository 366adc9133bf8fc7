"""MMBench and MMBench-CN: a TSV with pictures inside, rotated options, circular evaluation."""

import base64
import binascii
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic
from data_pipeline.common.progress import note
from svit_jax.evaluation.benchmark import (
    Question,
    answer_of,
    find_file,
    percent,
    require_fields,
    require_questions,
)
from svit_jax.evaluation.choices import LETTER_ANSWER, lettered, named_letter
from svit_jax.evaluation.intervals import Tally, mean_tally
from svit_jax.evaluation.tables import has_xlsx, to_tsv, to_xlsx

LETTER_ANSWER_CN = "\n请直接回答选项字母。"

Row = dict[str, str]

_OPTIONS = "ABCD"
_ROTATION = 1_000_000
# A longer cell is a picture; a shorter one is the index of the row that holds it.
_LONGEST_INDEX = 64
_LARGEST_CELL = 1 << 28
# What pandas, with which LLaVA reads the file, takes for an empty cell beside "nan" and "none".
_EMPTY = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "n/a", "NULL", "null"),
        *("-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan"),
    )
)
_NOT_UPLOADED = ("hint", "category", "source", "image", "comment", "l2-category")
_PREDICTION_COLUMN = 6
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_FROM_THE_END = 5
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def extract_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The option's letter that MMBench's matching reads from the answer, before any judge; or None.

    The one letter that stands alone as a word, if it first does so among the last four words; else
    the one option whose text the answer contains, if the answer is at most twice as long as all
    options' texts. A refusal, or a lone "Z" (which stands for "none"), gives none.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return None
    words = answer.translate(_PUNCTUATION).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _FROM_THE_END:
        return named[0]
    if not named and "Z" in words:
        return None
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    contained = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return contained[0] if len(contained) == 1 else None


def prompt_of(row: Row, suffix: str = LETTER_ANSWER) -> str:
    """The hint on a line of its own where there is one, the question, the options, the suffix."""
    hint = "" if _is_empty(row.get("hint", "")) else row["hint"] + "\n"
    return hint + row["question"] + lettered(list(_options(row).values())) + suffix


@dataclass(frozen=True)
class MMBench:
    """Reads the official TSV (`mmbench_dev_20230712.tsv`, or the one `*.tsv`), dev or test.

    A question stands there once for each rotation of its options, at `index` + k x 1,000,000. The
    pictures in the TSV are unpacked under the images folder, into a folder of the TSV's name.
    """

    name: str = "mmbench"
    file: str = "mmbench_dev_20230712.tsv"
    suffix: str = LETTER_ANSWER
    quirks = (
        "A question counts as right if those of its rotations are that the file holds, even if it "
        "holds one alone.",
        "A letter counts wherever it stands among the last four words, be it the article in "
        '"a dog".',
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        path = find_file(folder, self.file, "*.tsv", "MMBench questions")
        target = None if images is None else Path(images) / path.stem
        pictures: dict[str, Path] = {}
        questions = []
        for line, row in _read_tsv(path):
            where = f"MMBench questions {path}, line {line}"
            require_fields(row, ["index", "question", "A", "B", "image"], where)
            options = _options(row)
            if not row["index"].isdecimal() or len(options) < 2:
                raise UserError(
                    f"{where}: expected a number as its index and two options or more, found "
                    f"{row['index']!r} and {len(options)}; is this the official file?"
                )
            letter = row.get("answer", "")
            if not _is_empty(letter) and letter not in options:
                raise UserError(
                    f"{where}: the answer {letter!r} is none of {', '.join(options)}; "
                    "is this the official file?"
                )
            if target is not None:
                pictures[row["index"]] = _unpack(row, target, pictures, where)
            truth = {"letter": letter, "options": options}
            questions.append(
                Question(
                    question_id=row["index"],
                    text=prompt_of(row, self.suffix),
                    image=pictures.get(row["index"]),
                    truth=None if _is_empty(letter) else truth,
                    kind=row.get("category") or "question",
                    picture=str(int(row["index"]) % _ROTATION),
                    upload_row={k: v for k, v in row.items() if k not in _NOT_UPLOADED},
                )
            )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        """Whether this one rotation is answered rightly."""
        return extract_letter(answer, question.truth["options"]) == self.expected(question)

    def expected(self, question: Question) -> str:
        return question.truth["letter"]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """`accuracy` x 100 by circular evaluation: a question is right if all its rotations in the
        file are; `by_row`, the share of single rows that are right; then circular accuracy for
        each category, under `category/NAME`. Strictly a question of which rotations are missing
        counts among the `incomplete_circles` alone."""
        require_questions(questions, self.name)
        read = _plain_option if strict else extract_letter
        circles: dict[int, list[bool]] = {}
        categories: dict[int, str] = {}
        rotations: dict[int, int] = {}
        for question in questions:
            letter = read(answer_of(question, answers, self.name), question.truth["options"])
            base = base_of(question)
            circles.setdefault(base, []).append(letter == self.expected(question))
            categories.setdefault(base, question.kind)
            rotations[base] = len(question.truth["options"])
        rows = [float(verdict) for verdicts in circles.values() for verdict in verdicts]
        left_out = {}
        if strict:
            whole = {b: v for b, v in circles.items() if len(v) == rotations[b]}
            left_out = {"incomplete_circles": float(len(circles) - len(whole))}
            circles = whole
        by_category: dict[str, list[float]] = {}
        for base, verdicts in circles.items():
            by_category.setdefault(categories[base], []).append(float(all(verdicts)))
        everything = [value for values in by_category.values() for value in values]
        return {
            **({"accuracy": percent(everything)} if everything else {}),
            "by_row": percent(rows),
            **left_out,
            **{f"category/{name}": percent(by_category[name]) for name in sorted(by_category)},
        }

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        """The circular accuracy, a question with all its rotations at a time."""
        circles: dict[int, bool] = {}
        for question in questions:
            right = self.correct(question, answers[question.question_id])
            base = base_of(question)
            circles[base] = circles.get(base, True) and right
        return {"accuracy": mean_tally([float(v) for v in circles.values()], list(circles))}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str | bytes]:
        """The server's xlsx table: the official columns that LLaVA keeps, and `prediction` as the
        seventh; as TSV, after saying so, where there is no openpyxl."""
        rows = []
        for number, question in enumerate(questions):
            row = question.upload_row or {}
            if number == 0:
                rows.append(_with_prediction(list(row), "prediction"))
            answer = answers.get(question.question_id, "")
            rows.append(_with_prediction(list(row.values()), answer))
        if has_xlsx():
            index = [place for place, name in enumerate(rows[0]) if name == "index"]
            return {f"{self.name}_upload.xlsx": to_xlsx(rows, numbers=index)}
        note(
            f"{self.name}: the server takes xlsx, for which the package openpyxl is not installed; "
            "the same table is written as TSV (pip install 'svit-jax[evaluation]' and run again)."
        )
        return {f"{self.name}_upload.tsv": to_tsv(rows)}


def base_of(question: Question) -> int:
    """The number that all rotations of a question share."""
    return int(question.question_id) % _ROTATION


def _plain_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that is named plainly, or that of the option whose very text the answer is."""
    said = answer.strip(" .").lower()
    by_text = [letter for letter, text in options.items() if text.strip(" .").lower() == said]
    return named_letter(answer, len(options)) or (by_text[0] if len(by_text) == 1 else None)


def _with_prediction(cells: list[str], prediction: str) -> list[str]:
    return [*cells[:_PREDICTION_COLUMN], prediction, *cells[_PREDICTION_COLUMN:]]


def _is_empty(cell: str) -> bool:
    return cell in _EMPTY or cell.lower() in ("nan", "none")


def _options(row: Row) -> dict[str, str]:
    """The options up to the first empty one, by letter."""
    options: dict[str, str] = {}
    for letter in _OPTIONS:
        if _is_empty(row.get(letter, "")):
            break
        options[letter] = row[letter]
    return options


def _read_tsv(path: Path) -> Iterator[tuple[int, Row]]:
    # A picture in base64 is far longer than the 131,072 characters that csv allows a cell.
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect="excel-tab", restval="")
            for row in reader:
                if None in row:
                    raise UserError(
                        f"MMBench questions {path}, line {reader.line_num}: more cells than "
                        "columns; is this the official TSV?"
                    )
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"MMBench questions {path} cannot be read ({error}); fetch the official TSV again."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _unpack(row: Row, folder: Path, known: Mapping[str, Path], where: str) -> Path:
    """The row's picture as a file: written where it isn't there yet with just these bytes."""
    cell = row["image"]
    if len(cell) <= _LONGEST_INDEX:
        if cell not in known:
            raise UserError(
                f"{where}: its picture is that of row {cell!r}, which does not come before it; "
                "is the file complete?"
            )
        return known[cell]
    try:
        data = base64.b64decode(cell, validate=True)
    except binascii.Error as error:
        raise UserError(
            f"{where}: its picture is not valid base64 ({error}); fetch the official TSV again."
        ) from None
    suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
    path = folder / f"{row['index']}{suffix}"
    if not path.is_file() or path.read_bytes() != data:
        with open_atomic(path, "wb") as file:
            file.write(data)
    return path
