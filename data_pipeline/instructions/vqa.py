"""VQAv2's question and annotation files become LLaVA-1.5 rows with short answers."""

import sys
from collections.abc import Iterator
from typing import Any

import ijson

from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.common.json_stream import json_list_writer, stream_under
from data_pipeline.common.progress import progress
from data_pipeline.instructions.rows import llava_row

_FORM = "VQAv2's format"
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


def convert_vqa(
    questions_path: PathLike,
    annotations_path: PathLike,
    out: PathLike,
    images_prefix: str = "",
    pairs_per_dialogue: int = 10,
    suffix_every_turn: bool = True,
) -> int:
    """Writes a row for each `pairs_per_dialogue` questions about a picture; returns how many rows.

    The answer is `multiple_choice_answer`. The request for a short answer follows every question,
    or only a row's first one (as in LLaVA-1.5's own mix) without `suffix_every_turn`. The picture
    is `images_prefix` and the question's extra key `image_file`, where it has one, or COCO's file
    name by the file's `data_subtype`. Raises UserError naming the question that has no answer.
    """
    if pairs_per_dialogue < 1:
        raise UserError(f"pairs_per_dialogue is {pairs_per_dialogue}, expected 1 or more.")
    answers = {
        row["question_id"]: str(row["multiple_choice_answer"]).strip()
        for row in _rows(annotations_path, "annotations", ("question_id", "multiple_choice_answer"))
    }
    subtype = _subtype(questions_path)
    by_picture: dict[str, list[tuple[str, str]]] = {}
    wanted = ("question_id", "image_id", "question")
    for question in _rows(questions_path, "questions", wanted):
        number = question["question_id"]
        if number not in answers:
            raise UserError(
                f"VQA annotations {annotations_path} have no answer for question {number} of "
                f"{questions_path}; give the annotation file of the same split."
            )
        image = question.get("image_file") or _coco_name(question, subtype, questions_path)
        pairs = by_picture.setdefault(f"{images_prefix}{image}", [])
        # Questions and answers come again and again: each text is held once.
        pairs.append((sys.intern(question["question"].strip()), sys.intern(answers[number])))
    count = 0
    with json_list_writer(out) as write:
        for image, pairs in progress(by_picture.items(), "convert VQA", unit="picture"):
            for start in range(0, len(pairs), pairs_per_dialogue):
                turns: list[Turn] = []
                for question_text, answer in pairs[start : start + pairs_per_dialogue]:
                    suffix = SHORT_ANSWER if suffix_every_turn or not turns else ""
                    turns += [Turn("human", question_text + suffix), Turn("gpt", answer)]
                write(llava_row(f"vqa_{count}", image, turns))
                count += 1
    return count


def _rows(path: PathLike, key: str, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    number = 0
    for number, row in enumerate(stream_under(path, f"VQA {key} file", key, _FORM), start=1):
        missing = [name for name in wanted if not isinstance(row, dict) or name not in row]
        if missing:
            raise UserError(
                f'VQA {key} file {path}, row {number}, lacks the key "{missing[0]}"; '
                f"expected {_FORM}."
            )
        yield row
    if not number:
        raise UserError(
            f'VQA {key} file {path} has no list under the key "{key}"; expected {_FORM}.'
        )


def _subtype(path: PathLike) -> Any:
    """The file's `data_subtype`, which stands before or after its questions; None without one."""
    with require_file(path, "VQA questions file").open("rb") as file:
        return next(ijson.items(file, "data_subtype"), None)


def _coco_name(question: dict[str, Any], subtype: Any, path: PathLike) -> str:
    if not isinstance(subtype, str):
        raise UserError(
            f"VQA questions {path} name neither a data_subtype nor, in question "
            f'{question["question_id"]}, an image_file; add one, e.g. "data_subtype": "train2014".'
        )
    return f"COCO_{subtype}_{question['image_id']:012d}.jpg"
