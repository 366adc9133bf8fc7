"""Answers files: LLaVA's JSON lines, written for a finished run and read back for scoring."""

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
from svit_jax.evaluation.official_answers import (
    in_split_order,
    read_official_answers,
    require_text,
)
from svit_jax.evaluation.tables import read_table


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


def read_answers(
    path: PathLike, questions: Sequence[Question], by_position: bool = False
) -> dict[str, str]:
    """The texts on file by our question ids: this program's answers, LLaVA's, or a benchmark's own
    results (`official_answers.py`). What to do about questions without one says `unanswered.py`.

    Rows of JSON lines are matched by `question_id`; where the ids are other ones (LLaVA numbers
    POPE's splits through and gives both MME questions of a picture the same id), by id and prompt,
    then row by row if every prompt agrees. With `by_position`, as POPE's scripts have it, the n-th
    row of a split answers its n-th question. Raises UserError where no question gets an answer.
    """
    found = read_official_answers(path, questions, by_position)
    if found is None:
        found = _from_lines(path, list(_rows(path)), questions, by_position)
    if questions and not found:
        raise UserError(
            f"predictions {path} hold no answer to any of the {len(questions)} questions (the "
            f"first is {questions[0].question_id}); give the results of a run on these questions."
        )
    return found


def _from_lines(
    path: PathLike, rows: Sequence[Any], questions: Sequence[Question], by_position: bool
) -> dict[str, str]:
    for number, row in enumerate(rows, start=1):
        where = f"predictions {path}, line {number}"
        require_fields(row, ["question_id", "text"], where)
        require_text(row["text"], where)
    by_id = {str(row["question_id"]): row["text"] for row in rows}
    distinct = len(by_id) == len(rows)
    found = {q.question_id: by_id[q.question_id] for q in questions if q.question_id in by_id}
    if distinct and found:
        return _in_order(rows, questions) if by_position else found
    by_prompt = {_key(str(row["question_id"]), row.get("prompt")): row["text"] for row in rows}
    keys = [_key(q.question_id.split("#")[0], q.text) for q in questions]
    if max(Counter(keys).values(), default=1) == 1:
        found = {
            question.question_id: by_prompt[key]
            for question, key in zip(questions, keys, strict=True)
            if key in by_prompt
        }
        if found:
            return found
    if len(rows) == len(questions) and all(
        _words(q.text) == _words(row.get("prompt")) for q, row in zip(questions, rows, strict=True)
    ):
        return {q.question_id: row["text"] for q, row in zip(questions, rows, strict=True)}
    if distinct:
        return {}
    raise UserError(
        f"predictions {path} ({len(rows)} rows for {len(questions)} questions) repeat a question "
        "id; give the answers file of a finished run on the same questions."
    )


def _in_order(rows: Sequence[Any], questions: Sequence[Question]) -> dict[str, str]:
    """Each split's rows as they come, whatever question they name, beside its questions."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["question_id"].split("/")[0], []).append(row["text"])
    return in_split_order(texts, questions)


def _rows(path: PathLike) -> Iterator[Any]:
    """The rows of a table or of JSON lines as {question_id, text}, whatever they call the two."""
    file = require_file(path, "predictions")
    if file.suffix in (".tsv", ".xlsx"):
        where = f"predictions {path}"
        columns, rows = read_table(pathlib.Path(path))
        require_fields(dict.fromkeys(columns), ["index", "prediction"], where)
        for row in rows:
            yield {"question_id": row["index"], "text": row["prediction"] or ""}
    else:
        for row in read_jsonl(file, "predictions"):
            renamed = isinstance(row, dict) and "prediction" in row and "text" not in row
            yield {**row, "text": row["prediction"]} if renamed else row


def _words(prompt: Any) -> str:
    return " ".join(str(prompt).split())


def _key(question_id: str, prompt: Any) -> tuple[str, str]:
    return question_id, _words(prompt)
