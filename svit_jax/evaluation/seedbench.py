"""SEED-Bench-1: four options on a picture or on a video's middle frame; accuracy by dimension."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

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
from svit_jax.evaluation.choices import LETTER_ANSWER, lettered, named_letter
from svit_jax.evaluation.intervals import Tally

_OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")
_PICTURES = "SEED-Bench-image"
_FRAMES = "SEED-Bench-video-image"


@dataclass(frozen=True)
class SEEDBench:
    """Reads `SEED-Bench.json` (or the one `*.json`): `questions`, and `question_type`, the names of
    the dimensions by number.

    A picture lies under `SEED-Bench-image/` by its `data_id`; of a video its middle frame is taken
    from `SEED-Bench-video-image/`, named by the question's id.
    """

    name: str = "seedbench"
    quirks = ('An answer is right only if it is the letter and nothing else: "B." is wrong.',)

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        path = find_file(folder, "SEED-Bench.json", "*.json", "SEED-Bench questions")
        content = read_json(path, "SEED-Bench questions")
        require_fields(content, ["questions", "question_type"], f"SEED-Bench questions {path}")
        dimensions = {str(number): name for name, number in content["question_type"].items()}
        fields = ["question_id", "question_type_id", "data_type", "data_id", "question", "answer"]
        questions = []
        for number, row in enumerate(content["questions"]):
            where = f"SEED-Bench questions {path}, row {number}"
            require_fields(row, [*fields, *_OPTIONS], where)
            _require_known(row, dimensions, where)
            body = row["question"] + lettered([str(row[option]) for option in _OPTIONS])
            questions.append(
                Question(
                    question_id=str(row["question_id"]),
                    text=body + LETTER_ANSWER,
                    image=find_picture(images, _picture_names(row), where),
                    truth={
                        "letter": row["answer"],
                        "part": row["data_type"],
                        "question_id": row["question_id"],
                    },
                    kind=dimensions[str(row["question_type_id"])],
                    novel=bool(row.get("novel_combination", False)),
                    picture=str(row["data_id"]),
                )
            )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the answer is the letter and nothing else, as LLaVA's script demands."""
        return answer == self.expected(question)

    def expected(self, question: Question) -> str:
        return question.truth["letter"]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """Accuracy x 100 over all questions, over those on pictures (`image`) and on videos
        (`video`), and by dimension; each counts every question once (no mean of means)."""
        require_questions(questions, self.name)
        parts: dict[str, list[float]] = {"accuracy": [], "image": [], "video": []}
        for question in questions:
            answer = answer_of(question, answers, self.name)
            if strict:
                answer = named_letter(answer, len(_OPTIONS)) or ""
            right = float(self.correct(question, answer))
            for part in ("accuracy", question.truth["part"], question.kind):
                parts.setdefault(part, []).append(right)
        return {name: percent(values) for name, values in parts.items() if values}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        return {"accuracy": mean_over(questions, self.correct, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """The leaderboard's JSON lines {question_id, prediction}, each id as the file has it."""
        rows = [
            {"question_id": q.truth["question_id"], "prediction": answers[q.question_id]}
            for q in questions
            if q.question_id in answers
        ]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return {"seedbench_predictions.jsonl": "".join(lines)}


def _require_known(row: Mapping[str, Any], dimensions: Mapping[str, str], where: str) -> None:
    for field, known in (
        ("data_type", ("image", "video")),
        ("answer", ("A", "B", "C", "D")),
        ("question_type_id", tuple(dimensions)),
    ):
        if str(row[field]) not in known:
            raise UserError(
                f"{where}: {field} is {row[field]!r}, expected one of {', '.join(known)}; "
                "is this the official file of SEED-Bench-1?"
            )


def _picture_names(row: Mapping[str, Any]) -> list[str]:
    if row["data_type"] == "image":
        return [f"{_PICTURES}/{row['data_id']}", row["data_id"]]
    stems = (str(row["question_id"]), PurePosixPath(str(row["data_id"])).stem)
    return [f"{_FRAMES}/{stem}{suffix}" for stem in stems for suffix in (".png", ".jpg")]
