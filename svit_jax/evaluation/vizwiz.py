"""VizWiz VQA: blind people's questions, some of which no one can answer; VQA accuracy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
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

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
"""What LLaVA-1.5 appends to a VizWiz question, before the suffix of short answers."""


@dataclass(frozen=True)
class VizWiz:
    """Reads `val.json`, or else the one other `*.json` of the folder (`test.json`).

    A picture has one question; its file name is the question's id.
    """

    name: str = "vizwiz"
    quirks = VQA_QUIRKS

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        path = find_file(folder, "val.json", "*.json", "VizWiz questions")
        rows = read_json(path, "VizWiz questions")
        if not isinstance(rows, list):
            raise UserError(
                f"VizWiz questions {path}: expected a list, found {type(rows).__name__}; "
                "is this the official file?"
            )
        questions = []
        for number, row in enumerate(rows):
            where = f"VizWiz questions {path}, row {number}"
            require_fields(row, ["image", "question"], where)
            folders = ("", "val/", "test/")
            questions.append(
                Question(
                    question_id=row["image"],
                    text=row["question"] + UNANSWERABLE + SHORT_ANSWER,
                    image=find_picture(images, [f + row["image"] for f in folders], where),
                    truth=_truth(row, where),
                    kind=str(row.get("kind") or row.get("answer_type", "question")),
                    novel=bool(row.get("novel_combination", False)),
                    picture=row["image"],
                )
            )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the normalised answer is the annotators' most common one, normalised."""
        return normalise_answer(answer) == normalise_answer(self.expected(question))

    def credit(self, question: Question, answer: str, strict: bool = False) -> float:
        """The VQA accuracy (0..1) of one answer."""
        return (strict_accuracy if strict else vqa_accuracy)(answer, question.truth["answers"])

    def expected(self, question: Question) -> str:
        return most_common_answer(question.truth["answers"])

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """VQA accuracy x 100 with both sides normalised: overall, and for each answer type
        (`other`, `unanswerable`, `yes/no`, `number`)."""
        require_questions(questions, self.name)
        by_type: dict[str, list[float]] = {"accuracy": []}
        for question in questions:
            answer = answer_of(question, answers, self.name)
            accuracy = self.credit(question, answer, strict)
            by_type["accuracy"].append(accuracy)
            by_type.setdefault(question.truth["answer_type"], []).append(accuracy)
        return {name: percent(values) for name, values in by_type.items()}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {"accuracy": mean_over(questions, self.credit, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """EvalAI's list of {image, answer}, answers normalised, in the order of the questions."""
        rows = [
            {"image": q.question_id, "answer": normalise_answer(answers[q.question_id])}
            for q in questions
        ]
        return {"vizwiz_results.json": json.dumps(rows) + "\n"}


def _truth(row: dict[str, Any], where: str) -> dict[str, Any] | None:
    if "answers" not in row:
        return None
    if not row["answers"]:
        raise UserError(f"{where}: 'answers' is empty; expected the annotators' answers.")
    for answer in row["answers"]:
        require_fields(answer, ["answer"], where)
    return {
        "answers": [answer["answer"] for answer in row["answers"]],
        "answer_type": str(row.get("answer_type", "other")),
    }
