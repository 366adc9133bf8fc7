"""Referring questions: does the first box in the answer overlap the true one by half?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_pipeline.common.boxes import (
    NormalBox,
    find_boxes,
    format_box,
    intersection_over_union,
)
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.evaluation.benchmark import (
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

IOU_THRESHOLD = 0.5


def true_boxes(question: Question) -> list[NormalBox]:
    """The question's boxes, in fractions of the padded square."""
    return [NormalBox(*map(float, box)) for box in question.truth]


def overlap(question: Question, answer: str) -> float:
    """The intersection over union (0..1) of the first box in the answer with the true box.

    Where several boxes are true, the nearest counts; an answer without a box gives 0.
    """
    boxes = find_boxes(answer)
    if not boxes:
        return 0.0
    return max(intersection_over_union(boxes[0], truth) for truth in true_boxes(question))


@dataclass(frozen=True)
class Grounding:
    """Reads `questions.json`: a list of {question_id, image, text, boxes}; `text` is the whole
    prompt, boxes are in fractions of the padded square."""

    name: str = "referring"
    quirks = ()

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        path = find_file(folder, "questions.json", "*questions.json", "referring questions")
        content = read_json(path, "referring questions")
        if not isinstance(content, list):
            raise UserError(
                f"referring questions {path}: expected a list, found {type(content).__name__}."
            )
        questions = []
        for number, row in enumerate(content):
            where = f"referring questions {path}, row {number}"
            require_fields(row, ["question_id", "image", "text", "boxes"], where)
            _require_boxes(row["boxes"], where)
            questions.append(
                Question(
                    question_id=str(row["question_id"]),
                    text=row["text"],
                    image=find_picture(images, [row["image"]], where),
                    truth=row["boxes"],
                    kind=str(row.get("kind", "referring_qa")),
                    novel=bool(row.get("novel_combination", False)),
                    picture=str(row["image"]),
                )
            )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        return overlap(question, answer) >= IOU_THRESHOLD

    def expected(self, question: Question) -> str:
        return ", ".join(format_box(box) for box in true_boxes(question))

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """`iou_50`: the share x 100 of answers whose first box overlaps a true one by half or
        more; `mean_iou` x 100; `answered_with_box`: the share x 100 that name a box at all."""
        require_questions(questions, self.name)
        given = [answer_of(question, answers, self.name) for question in questions]
        overlaps = [overlap(q, answer) for q, answer in zip(questions, given, strict=True)]
        return {
            "iou_50": percent([float(value >= IOU_THRESHOLD) for value in overlaps]),
            "mean_iou": percent(overlaps),
            "answered_with_box": percent([float(bool(find_boxes(answer))) for answer in given]),
        }

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {"iou_50": mean_over(questions, self.correct, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """A list of {question_id, answer, box}: the first box, or null (there is no server)."""
        rows = []
        for question in questions:
            answer = answers[question.question_id]
            box = next(iter(find_boxes(answer)), None)
            rows.append({"question_id": question.question_id, "answer": answer, "box": box})
        return {"referring_answers.json": json.dumps(rows, ensure_ascii=False) + "\n"}


def _require_boxes(boxes: object, where: str) -> None:
    def is_box(box: object) -> bool:
        return (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, int | float) and 0 <= v <= 1 for v in box)
        )

    if not isinstance(boxes, list) or not boxes or not all(map(is_box, boxes)):
        raise UserError(
            f"{where}: 'boxes' is {boxes!r}; expected a list of boxes, each four numbers in 0..1."
        )
