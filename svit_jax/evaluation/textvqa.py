"""TextVQA 0.5.1: questions about text in pictures, LLaVA's OCR line, M4C's VQA accuracy."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, read_jsonl
from svit_jax.evaluation.benchmark import (
    SHORT_ANSWER,
    Question,
    answer_of,
    find_file,
    find_picture,
    mean_over,
    percent,
    require_fields,
    require_questions,
)
from svit_jax.evaluation.intervals import Tally
from svit_jax.evaluation.vqa_accuracy import (
    VQA_QUIRKS,
    most_common_answer,
    normalise_answer,
    strict_accuracy,
    vqa_accuracy,
)

_ANNOTATORS = 10
_OCR_LINE = "\nReference OCR token: "


@dataclass(frozen=True)
class RepeatedQuestion(Question):
    """A question that a later row asks of the same picture again: that row's answers are its
    `truth`, those of its own row are `own_answers`."""

    own_answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextVQA:
    """Reads `TextVQA_0.5.1_val.json` and, if there, the OCR tokens beside it.

    The tokens come from LLaVA's own question file (`*_ocr.jsonl`, whose prompts are taken byte for
    byte) or else from the release's `TextVQA_Rosetta_OCR_*.json`. Without either the prompt has no
    OCR line, which costs LLaVA-1.5 about 12 points.

    A row's extra field `image_file` names its picture, if there. A question's id is
    `image_id#question_id`, since LLaVA's files give the image alone.
    """

    name: str = "textvqa"
    quirks = (
        *VQA_QUIRKS,
        "Where a picture has the same question twice, the later row's answers count for both.",
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        path = find_file(
            folder, "TextVQA_0.5.1_val.json", "TextVQA_0.5.1_*.json", "TextVQA questions"
        )
        rows = _rows(path, "TextVQA questions", ["question_id", "image_id", "question"])
        prompt_of = _prompts(path.parent)
        # LLaVA's scorer looks truths up by picture and question, so where a picture has the same
        # question twice, the later row's answers count for both.
        truths = {_key(row["image_id"], row["question"]): row.get("answers") for row in rows}
        questions = []
        for number, row in enumerate(rows):
            where = f"TextVQA questions {path}, row {number}"
            answers = truths[_key(row["image_id"], row["question"])]
            own = row.get("answers", answers)
            for given in (answers, own):
                if given is not None and len(given) != _ANNOTATORS:
                    raise UserError(
                        f"{where}: found {len(given)} answers, expected {_ANNOTATORS}; "
                        "is this the official file?"
                    )
            picture = row.get("image_file") or f"{row['image_id']}.jpg"
            folders = ("", "train_images/", "test_images/")
            question = Question(
                question_id=f"{row['image_id']}#{row['question_id']}",
                text=prompt_of(row, where),
                image=find_picture(images, [folder + picture for folder in folders], where),
                truth=answers,
                kind=str(row.get("kind", "question")),
                novel=bool(row.get("novel_combination", False)),
                picture=str(row["image_id"]),
            )
            if own is not None and own is not answers:
                question = RepeatedQuestion(**vars(question), own_answers=tuple(own))
            questions.append(question)
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the normalised answer is the annotators' most common one, normalised."""
        return normalise_answer(answer) == normalise_answer(self.expected(question))

    def credit(self, question: Question, answer: str) -> float:
        """The VQA accuracy (0..1) of one answer."""
        return vqa_accuracy(answer, question.truth)

    def expected(self, question: Question) -> str:
        return most_common_answer(question.truth)

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """VQA accuracy x 100 with both sides normalised, as M4C's evaluator computes it.

        Strictly each row counts by its own answers. What that does alone, with the official
        normaliser, is `accuracy_by_own_answers`; it concerns `repeated_questions`."""
        require_questions(questions, self.name)
        said = [(question, answer_of(question, answers, self.name)) for question in questions]
        if not strict:
            return {"accuracy": percent([self.credit(*each) for each in said])}
        return {
            "accuracy": percent([strict_accuracy(text, _own_answers(q)) for q, text in said]),
            "accuracy_by_own_answers": percent(
                [vqa_accuracy(text, _own_answers(q)) for q, text in said]
            ),
            "repeated_questions": float(sum(isinstance(q, RepeatedQuestion) for q in questions)),
        }

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {"accuracy": mean_over(questions, self.credit, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """EvalAI's list of {question_id, answer}, in the order of the questions."""
        rows = [
            {
                "question_id": int(question.question_id.split("#")[1]),
                "answer": normalise_answer(answers[question.question_id]),
            }
            for question in questions
        ]
        return {"textvqa_results.json": json.dumps(rows) + "\n"}


def _own_answers(question: Question) -> Sequence[str]:
    return question.own_answers if isinstance(question, RepeatedQuestion) else question.truth


def _prompts(folder: pathlib.Path) -> Callable[[dict[str, Any], str], str]:
    """What makes a row's prompt, by the OCR file that lies in the folder."""
    if any(folder.glob("*_ocr.jsonl")):
        path = find_file(folder, "llava_textvqa_val_v051_ocr.jsonl", "*_ocr.jsonl", "LLaVA prompts")
        texts = {}
        for number, row in enumerate(read_jsonl(path, "LLaVA prompts"), start=1):
            require_fields(row, ["image", "text"], f"LLaVA prompts {path}, line {number}")
            texts[_key(pathlib.PurePath(row["image"]).stem, row["text"].split("\n")[0])] = row[
                "text"
            ]

        def of_llava(row: dict[str, Any], where: str) -> str:
            return _found(texts, _key(row["image_id"], row["question"]), where, path)

        return of_llava
    if any(folder.glob("*OCR*.json")):
        path = find_file(folder, "TextVQA_Rosetta_OCR_v0.2_val.json", "*OCR*.json", "OCR tokens")
        rows = _rows(path, "OCR tokens", ["image_id", "ocr_tokens"])
        tokens = {str(row["image_id"]): row["ocr_tokens"] for row in rows}

        def with_tokens(row: dict[str, Any], where: str) -> str:
            found = ", ".join(_found(tokens, str(row["image_id"]), where, path))
            return row["question"].capitalize() + _OCR_LINE + found + SHORT_ANSWER

        return with_tokens
    return lambda row, where: row["question"].capitalize() + SHORT_ANSWER


def _found(values: Mapping[Any, Any], key: Any, where: str, path: pathlib.Path) -> Any:
    if key not in values:
        raise UserError(f"{where}: {path} has nothing for it; use the OCR file of the same split.")
    return values[key]


def _rows(path: pathlib.Path, what: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    content = read_json(path, what)
    require_fields(content, ["data"], f"{what} {path}")
    for number, row in enumerate(content["data"]):
        require_fields(row, fields, f"{what} {path}, row {number}")
    return content["data"]


def _key(image_id: Any, question: str) -> tuple[str, str]:
    return str(image_id), question.lower()
