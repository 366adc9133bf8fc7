"""Benchmarks' own files of results, read back for scoring: what a server or script takes."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.evaluation.benchmark import Question, require_fields

_IDS = ("question_id", "questionId", "id", "image")
_TEXTS = ("answer", "prediction", "response")


def read_official_answers(path: PathLike, questions: Sequence[Question]) -> dict[str, str] | None:
    """The texts by our question ids; None where the path is a file of JSON lines instead.

    Taken are a list of rows (VQAv2's and TextVQA's `question_id` and `answer`, GQA's `questionId`
    and `prediction`, VizWiz's `image` and `answer`), an object of answers by id (MMMU; ScienceQA's
    under `outputs`) and a folder of `SUBJECT/output.json` with rows of `id` and `response` (MMMU's
    raw outputs). Answers to other questions are left aside: an upload may have to cover a whole
    test set. Raises UserError for a malformed row, an id that occurs twice and a question without
    an answer.
    """
    by_id = _answers_by_id(pathlib.Path(path))
    if by_id is None:
        return None
    found = {}
    for question in questions:
        # TextVQA's results name the question alone, our ids the picture too.
        own = question.question_id
        key = own if own in by_id else own.rsplit("#", 1)[-1]
        if key not in by_id:
            raise UserError(
                f"predictions {path} ({len(by_id)} answers for {len(questions)} questions) has no "
                f"answer to question {own}; give the results of a finished run on these questions."
            )
        found[own] = by_id[key]
    return found


def _answers_by_id(path: pathlib.Path) -> dict[str, str] | None:
    if path.is_dir():
        files = sorted(path.glob("*/output.json"))
        if not files:
            raise UserError(f"predictions {path}: there is no SUBJECT/output.json in this folder.")
        return _from_rows((row for file in files for row in _list(file)), path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, OSError):
        return None
    if isinstance(content, list):
        return _from_rows(content, path)
    if not isinstance(content, dict) or "question_id" in content:
        return None
    if "results" in content:  # ScienceQA's, which holds letters by number there
        require_fields(content, ["outputs"], f"predictions {path}")
    content = content.get("outputs", content)
    if not isinstance(content, dict):
        raise UserError(f"predictions {path}: expected answers by id under 'outputs'.")
    for key, value in content.items():
        _require_text(value, f"predictions {path}, answer to {key}")
    return content


def _list(path: pathlib.Path) -> list[Any]:
    content = read_json(path, "predictions")
    if not isinstance(content, list):
        raise UserError(f"predictions {path}: expected a list, found {type(content).__name__}.")
    return content


def _from_rows(rows: Iterable[Any], path: pathlib.Path) -> dict[str, str]:
    by_id: dict[str, str] = {}
    for number, row in enumerate(rows):
        where = f"predictions {path}, row {number}"
        key, value = (_first(row, names, where) for names in (_IDS, _TEXTS))
        if str(key) in by_id:
            raise UserError(f"{where}: id {key} occurs twice; each question has one answer.")
        by_id[str(key)] = _require_text(value, where)
    return by_id


def _first(row: Any, names: Sequence[str], where: str) -> Any:
    for name in names:
        if isinstance(row, dict) and name in row:
            return row[name]
    raise UserError(f"{where}: expected an object with one of {', '.join(names)}.")


def _require_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: expected a text, found {value!r}.")
    return value
