"""VQAv2: the challenge's question and annotation files, VQA accuracy, the EvalAI upload."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from svit_jax.evaluation.vqa_accuracy import (
    VQA_QUIRKS,
    normalise_answer,
    server_accuracy,
    strict_accuracy,
)


@dataclass(frozen=True)
class VQAv2Question(Question):
    """A question of test-dev; `others`, the same for all, are test2015's ids besides test-dev's."""

    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class VQAv2:
    """Reads `questions.json` (or `v2_..._questions.json`) and, if there, the annotations beside it.

    A row's `image_file` names its picture; without it COCO's name is built from `image_id`. Its
    kind is the extra field `kind` or the annotation's `question_type`.
    """

    name: str = "vqav2"
    quirks = (*VQA_QUIRKS, "Where all annotators agree, only the uploaded answer is normalised.")

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        root = pathlib.Path(folder)
        # The zip of the test questions holds those of all of test2015 as well.
        pattern = "*test-dev2015_questions.json"
        if (root / "questions.json").is_file() or not unpack_matching(root, pattern):
            pattern = "*questions.json"
        path = find_file(root, "questions.json", pattern, "VQAv2 questions")
        content = read_json(path, "VQAv2 questions")
        require_fields(content, ["questions"], f"VQAv2 questions {path}")
        # The pictures of test-dev2015 are those of test2015.
        split = str(content.get("data_subtype", "val2014")).replace("test-dev", "test")
        annotations = self._annotations(path)
        questions = []
        for number, row in enumerate(content["questions"]):
            where = f"VQAv2 questions {path}, row {number}"
            require_fields(row, ["question_id", "image_id", "question"], where)
            annotation = annotations.get(str(row["question_id"]))
            if annotations and annotation is None:
                raise UserError(
                    f"{where}: question {row['question_id']} has no annotation; "
                    "questions and annotations must be of the same split."
                )
            extra = {**row, **(annotation or {})}
            questions.append(
                Question(
                    question_id=str(row["question_id"]),
                    text=row["question"] + SHORT_ANSWER,
                    image=find_picture(images, _picture_names(row, split), where),
                    truth=_truth(annotation),
                    kind=str(extra.get("kind") or extra.get("question_type", "question")),
                    novel=bool(extra.get("novel_combination", False)),
                    picture=str(row["image_id"]),
                )
            )
        others = _other_ids(path, questions)
        if not others:
            return questions
        return [VQAv2Question(**vars(question), others=others) for question in questions]

    def _annotations(self, questions_path: Any) -> dict[str, dict[str, Any]]:
        folder = questions_path.parent
        if not unpack_matching(folder, "*annotations.json"):
            return {}
        path = find_file(folder, "annotations.json", "*annotations.json", "VQAv2 annotations")
        content = read_json(path, "VQAv2 annotations")
        require_fields(content, ["annotations"], f"VQAv2 annotations {path}")
        for number, row in enumerate(content["annotations"]):
            where = f"VQAv2 annotations {path}, row {number}"
            require_fields(row, ["question_id", "answers", "multiple_choice_answer"], where)
            if not row["answers"]:
                raise UserError(f"{where}: 'answers' is empty; expected the annotators' answers.")
        return {str(row["question_id"]): row for row in content["annotations"]}

    def correct(self, question: Question, answer: str) -> bool:
        """Whether the normalised answer is the annotators' most common one, normalised."""
        return normalise_answer(answer) == normalise_answer(self.expected(question))

    def credit(self, question: Question, answer: str, strict: bool = False) -> float:
        """The VQA accuracy (0..1) of one answer."""
        if strict:
            return strict_accuracy(answer, question.truth["answers"])
        return server_accuracy(normalise_answer(answer), question.truth["answers"])

    def expected(self, question: Question) -> str:
        return question.truth["most_common"]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """VQA accuracy x 100 as the server gives it for LLaVA-1.5's upload (normalised answers):
        overall, and for each answer type (`yes/no`, `number`, `other`)."""
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
        """EvalAI's list of {question_id, answer}; a question without an answer gets "", as do those
        of test2015 that test-dev doesn't ask, if their file lies beside test-dev's."""
        others = next((q.others for q in questions if isinstance(q, VQAv2Question)), ())
        asked = [question.question_id for question in questions]
        rows = [_upload_row(key, answers.get(key, "")) for key in (*asked, *others)]
        return {"vqav2_results.json": json.dumps(rows) + "\n"}


def _other_ids(path: pathlib.Path, asked: Sequence[Question]) -> tuple[str, ...]:
    """The ids that EvalAI wants named as well: it takes a test-dev2015 upload only if all questions
    of test2015 are in it."""
    whole = path.with_name(path.name.replace("test-dev2015", "test2015"))
    if whole == path or not unpack_matching(path.parent, whole.name):
        return ()
    content = read_json(whole, "VQAv2 questions")
    require_fields(content, ["questions"], f"VQAv2 questions {whole}")
    known = {question.question_id for question in asked}
    ids = (str(row["question_id"]) for row in content["questions"])
    return tuple(key for key in ids if key not in known)


def _upload_row(question_id: str, answer: str) -> dict[str, Any]:
    number = int(question_id) if question_id.isdecimal() else question_id
    return {"question_id": number, "answer": normalise_answer(answer)}


def _picture_names(row: dict[str, Any], split: str) -> list[str]:
    if "image_file" in row:
        return [row["image_file"]]
    name = f"COCO_{split}_{int(row['image_id']):012d}.jpg"
    return [name, f"{split}/{name}"]


def _truth(annotation: dict[str, Any] | None) -> dict[str, Any] | None:
    if annotation is None:
        return None
    return {
        "answers": [row["answer"] for row in annotation["answers"]],
        "most_common": annotation["multiple_choice_answer"],
        "answer_type": str(annotation.get("answer_type", "other")),
    }
