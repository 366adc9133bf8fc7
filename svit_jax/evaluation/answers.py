"""Answers files: LLaVA's JSON lines, written for a finished run and read back for scoring."""

import csv
import io
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import (
    PathLike,
    content_hash,
    read_jsonl,
    require_file,
    write_jsonl,
)
from svit_jax.evaluation.benchmark import Question, require_fields
from svit_jax.evaluation.official_answers import read_official_answers


@dataclass(frozen=True)
class Answers:
    """A finished run: `texts` by question id, in the order of the questions; `file` holds them."""

    benchmark: str
    blank: bool
    texts: Mapping[str, str]
    file: pathlib.Path


def write_answers(
    path: PathLike,
    questions: Sequence[Question],
    texts: Mapping[str, str],
    model_id: str,
    metadata: Mapping[str, Any],
) -> None:
    """Writes LLaVA's answers file: question_id, prompt, text, answer_id, model_id, metadata.

    The `answer_id` is a hash of model and question, so that a repeated run writes the same bytes.
    """
    write_jsonl(
        path,
        (
            {
                "question_id": question.question_id,
                "prompt": question.text,
                "text": texts[question.question_id],
                "answer_id": content_hash([model_id, dict(metadata), question.question_id]),
                "model_id": model_id,
                "metadata": dict(metadata),
            }
            for question in questions
        ),
    )


def read_answers(path: PathLike, questions: Sequence[Question]) -> dict[str, str]:
    """The texts of an answers file by our question ids: this program's, LLaVA's, or a benchmark's
    own file of results (`official_answers.py`).

    Rows of JSON lines are matched by `question_id`; where the ids are other ones (LLaVA numbers
    POPE's splits through and gives both MME questions of a picture the same id), by id and prompt,
    then row by row if every prompt agrees. Raises UserError where none of these fits all questions.
    """
    official = read_official_answers(path, questions)
    if official is not None:
        return official
    rows = list(_rows(path))
    for number, row in enumerate(rows, start=1):
        require_fields(row, ["question_id", "text"], f"predictions {path}, line {number}")
    by_id = {str(row["question_id"]): row["text"] for row in rows}
    if len(by_id) == len(rows) and all(q.question_id in by_id for q in questions):
        return {q.question_id: by_id[q.question_id] for q in questions}
    by_prompt = {_key(str(row["question_id"]), row.get("prompt")): row["text"] for row in rows}
    keys = [_key(q.question_id.split("#")[0], q.text) for q in questions]
    unique = max(Counter(keys).values(), default=1) == 1
    if unique and all(key in by_prompt for key in keys):
        return {q.question_id: by_prompt[key] for q, key in zip(questions, keys, strict=True)}
    if len(rows) == len(questions) and all(
        _words(q.text) == _words(row.get("prompt")) for q, row in zip(questions, rows, strict=True)
    ):
        return {q.question_id: row["text"] for q, row in zip(questions, rows, strict=True)}
    missing = next((q.question_id for q in questions if q.question_id not in by_id), None)
    found = "repeats a question id" if missing is None else f"has no answer to question {missing}"
    raise UserError(
        f"predictions {path} ({len(rows)} rows for {len(questions)} questions) {found}; "
        "give the answers file of a finished run on the same questions."
    )


def _rows(path: PathLike) -> Iterator[Any]:
    """The rows of a table or of JSON lines as {question_id, text}, whatever they call the two."""
    file = require_file(path, "predictions")
    if file.suffix == ".tsv":
        where = f"predictions {path}"
        table = csv.DictReader(io.StringIO(file.read_text()), dialect="excel-tab")
        require_fields(dict.fromkeys(table.fieldnames or ()), ["index", "prediction"], where)
        for row in table:
            yield {"question_id": row["index"], "text": row["prediction"] or ""}
    else:
        for row in read_jsonl(file, "predictions"):
            renamed = isinstance(row, dict) and "prediction" in row and "text" not in row
            yield {**row, "text": row["prediction"]} if renamed else row


def _words(prompt: Any) -> str:
    return " ".join(str(prompt).split())


def _key(question_id: str, prompt: Any) -> tuple[str, str]:
    return question_id, _words(prompt)
