"""GQA: the balanced question files, exact match, the official prediction file."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.evaluation.archives import unpack_matching
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

_AROUND = " \t\n.,;:!?\"'"


def prediction_of(answer: str) -> str:
    """What LLaVA-1.5 hands to GQA's script: periods at the end removed, lowercased."""
    return answer.rstrip(".").lower()


@dataclass(frozen=True)
class GQA:
    """Reads `questions.json` (or the one `*_questions.json`): question id -> question."""

    name: str = "gqa"
    quirks = (
        "Of an answer only periods at its end are removed: a comma or a space there is wrong.",
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        root = pathlib.Path(folder)
        # The zip of the questions holds every split's, some of them gigabytes long.
        pattern = "testdev_balanced_questions.json"
        if (root / "questions.json").is_file() or not unpack_matching(root, pattern):
            pattern = "*questions.json"
        path = find_file(root, "questions.json", pattern, "GQA questions")
        content = read_json(path, "GQA questions")
        if not isinstance(content, dict):
            raise UserError(
                f"GQA questions {path}: expected an object of questions by id, found "
                f"{type(content).__name__}; is this the official file?"
            )
        questions = []
        for key, row in content.items():
            where = f"GQA questions {path}, question {key}"
            require_fields(row, ["question", "imageId"], where)
            types = row.get("types") or {}
            truth = None
            if "answer" in row:
                truth = {"answer": row["answer"], "structural": types.get("structural")}
            picture = f"{row['imageId']}.jpg"
            folders = ("", "VG_100K/", "VG_100K_2/", "images/")
            questions.append(
                Question(
                    question_id=str(key),
                    text=row["question"] + SHORT_ANSWER,
                    image=find_picture(images, [folder + picture for folder in folders], where),
                    truth=truth,
                    kind=str(row.get("kind") or types.get("detailed") or "question"),
                    novel=bool(row.get("novel_combination", False)),
                    picture=str(row["imageId"]),
                )
            )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        return prediction_of(answer) == self.expected(question)

    def expected(self, question: Question) -> str:
        return question.truth["answer"]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """Exact match x 100: overall and, where the structural type is known, as GQA's `eval.py`
        splits it: `open` for "query" questions, `binary` for all others."""
        require_questions(questions, self.name)
        by_part: dict[str, list[float]] = {"accuracy": []}
        for question in questions:
            answer = answer_of(question, answers, self.name)
            if strict:
                answer = answer.strip(_AROUND)
            right = float(self.correct(question, answer))
            by_part["accuracy"].append(right)
            structural = question.truth["structural"]
            if structural is not None:
                part = "open" if structural == "query" else "binary"
                by_part.setdefault(part, []).append(right)
        return {name: percent(values) for name, values in by_part.items()}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {"accuracy": mean_over(questions, self.correct, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """GQA's list of {questionId, prediction} of the questions that have an answer."""
        rows = [
            {"questionId": q.question_id, "prediction": prediction_of(answers[q.question_id])}
            for q in questions
            if q.question_id in answers
        ]
        return {"testdev_balanced_predictions.json": json.dumps(rows, ensure_ascii=False) + "\n"}
