"""Benchmarks' own files of results, read back for scoring: what a server or script takes."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, read_jsonl
from svit_jax.evaluation.benchmark import Question, require_fields

_IDS = ("question_id", "questionId", "id", "image")
_TEXTS = ("answer", "prediction", "response")
_MME_COLUMNS = 4


def read_official_answers(
    path: PathLike, questions: Sequence[Question], by_position: bool = False
) -> dict[str, str] | None:
    """The texts by our question ids; None where the path is a file of JSON lines or a table.

    Taken are a list of rows (VQAv2's and TextVQA's `question_id` and `answer`, GQA's `questionId`
    and `prediction`, VizWiz's `image` and `answer`), an object of answers by id (MMMU, MM-Vet;
    ScienceQA's under `outputs`), POPE's JSON lines of `question` and `answer` (a file for a split,
    or a folder of them), and of folders MMMU's raw outputs (`SUBJECT/output.json` with rows of `id`
    and `response`) and MME's `SUBTASK.txt` (picture, question, truth, answer by tabs). Answers to
    other questions are left aside: an upload may have to cover a whole test set. Raises UserError
    for a malformed row and an id that occurs twice.
    """
    root = pathlib.Path(path)
    if root.is_dir():
        return _from_folder(root, questions, by_position)
    if _is_pope(root):
        return _pope_answers([root], questions, by_position)
    by_id = _answers_by_id(root)
    if by_id is None:
        return None
    # TextVQA's results name the question alone, our ids the picture too.
    keys = [(q.question_id, q.question_id.rsplit("#", 1)[-1]) for q in questions]
    return {
        own: by_id[own if own in by_id else short]
        for own, short in keys
        if own in by_id or short in by_id
    }


def in_split_order(
    texts: Mapping[str, Sequence[str]], questions: Sequence[Question]
) -> dict[str, str]:
    """The n-th text of a split for its n-th question; more texts than questions are left aside."""
    found = {}
    places: Counter[str] = Counter()
    for question in questions:
        split = question.question_id.split("/")[0]
        if places[split] < len(texts.get(split, ())):
            found[question.question_id] = texts[split][places[split]]
        places[split] += 1
    return found


def require_text(value: Any, where: str) -> str:
    """The value. Raises UserError where it is no text."""
    if not isinstance(value, str):
        raise UserError(f"{where}: expected a text, found {value!r}.")
    return value


def _from_folder(
    root: pathlib.Path, questions: Sequence[Question], by_position: bool
) -> dict[str, str]:
    if outputs := sorted(root.glob("*/output.json")):
        by_id = _from_rows((row for file in outputs for row in _list(file)), root)
        return {q.question_id: by_id[q.question_id] for q in questions if q.question_id in by_id}
    if answers := [file for file in sorted(root.glob("*.json*")) if _is_pope(file)]:
        return _pope_answers(answers, questions, by_position)
    subtasks = {question.question_id.split("/")[0] for question in questions}
    if texts := [file for file in sorted(root.glob("*.txt")) if file.stem in subtasks]:
        return {key: text for file in texts for key, text in _mme_answers(file, questions).items()}
    raise UserError(
        f"predictions {root}: this folder holds neither SUBJECT/output.json (MMMU) nor "
        "SUBTASK.txt (MME) nor a split's answers (POPE); give the folder of the results."
    )


def _is_pope(path: pathlib.Path) -> bool:
    """Whether the first line is one of POPE's answers, which know no ids."""
    try:
        with path.open(encoding="utf-8") as file:
            row = json.loads(file.readline())
    except (ValueError, OSError):
        return False
    return isinstance(row, dict) and {"question", "answer"} <= set(row) and not set(_IDS) & set(row)


def _pope_answers(
    files: Sequence[pathlib.Path], questions: Sequence[Question], by_position: bool
) -> dict[str, str]:
    """By position, as POPE's script has it; or only where the row repeats its question, too."""
    splits = list(dict.fromkeys(question.question_id.split("/")[0] for question in questions))
    texts: dict[str, list[str]] = {}
    found = {}
    for file in files:
        named = [split for split in splits if split in file.name] or splits
        if len(named) > 1:
            raise UserError(
                f"predictions {file}: POPE's answers name no split; put one of "
                f"{', '.join(splits)} into the file's name, or give a --data folder of one split."
            )
        rows = list(read_jsonl(file, "predictions"))
        for number, row in enumerate(rows, start=1):
            where = f"predictions {file}, line {number}"
            require_fields(row, ["question", "answer"], where)
            require_text(row["answer"], where)
        texts[named[0]] = [row["answer"] for row in rows]
        own = [q for q in questions if q.question_id.split("/")[0] == named[0]]
        for question, row in zip(own, rows, strict=False):
            if question.text.split("\n")[0] == row["question"]:
                found[question.question_id] = row["answer"]
    return in_split_order(texts, questions) if by_position else found


def _mme_answers(file: pathlib.Path, questions: Sequence[Question]) -> dict[str, str]:
    """A subtask's answers by picture and question, or by place where the question is worded
    otherwise (`calculation.py` reads neither)."""
    own = [q for q in questions if q.question_id.split("/")[0] == file.stem]
    by_words = {(q.truth["picture"], q.truth["question"]): q for q in own}
    by_place = {q.question_id: q for q in own}
    seen: Counter[str] = Counter()
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"predictions {file}, line {number}"
        cells = line.split("\t")
        if len(cells) != _MME_COLUMNS:
            raise UserError(
                f"{where}: expected picture, question, truth and answer separated by tabs, found "
                f"{len(cells)} cells; the official script stops here too."
            )
        picture, words, truth, answer = cells
        seen[picture] += 1
        question = by_words.get((picture, words)) or by_place.get(
            f"{file.stem}/{picture}#{seen[picture]}"
        )
        if question is None:
            continue
        if truth.lower() != question.truth["answer"].lower():
            raise UserError(
                f"{where}: it calls {truth!r} the truth where the questions say "
                f"{question.truth['answer']!r}; give the results of these questions."
            )
        found[question.question_id] = answer
    return found


def _answers_by_id(path: pathlib.Path) -> dict[str, str] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
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
        require_text(value, f"predictions {path}, answer to {key}")
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
        by_id[str(key)] = require_text(value, where)
    return by_id


def _first(row: Any, names: Sequence[str], where: str) -> Any:
    for name in names:
        if isinstance(row, dict) and name in row:
            return row[name]
    raise UserError(f"{where}: expected an object with one of {', '.join(names)}.")
