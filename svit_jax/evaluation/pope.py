"""POPE: is an object in the picture? Yes/no questions as JSON lines; F1 and the tendency to yes."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_jsonl
from svit_jax.evaluation.benchmark import (
    SHORT_ANSWER,
    Question,
    answer_of,
    cluster_of,
    find_picture,
    require_fields,
    require_questions,
)
from svit_jax.evaluation.choices import first_yes_or_no
from svit_jax.evaluation.intervals import Tally, make_tally, ratio

_SPLITS = ("random", "popular", "adversarial")


def parse_yes_no(answer: str) -> str:
    """ "yes" or "no" as LLaVA's `eval_pope.py` reads the answer.

    Only the text before the first period counts, commas are removed and words are what single
    spaces separate: "no" if "No", "no" or "not" is among them, otherwise "yes". So "NO" and
    "isn't" read as yes.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


@dataclass(frozen=True)
class POPE:
    """Reads every `*_pope_*.json` of the folder: the random, popular and adversarial splits.

    The official script scores by position and never looks at ids, so a question's id here is its
    split and its line, `random/1`, which holds even where a file repeats its `question_id`.
    """

    name: str = "pope"
    quirks = (
        "Answers are matched to questions by their position in the file, never by id.",
        'Whatever holds none of the words "No", "no" and "not" before its first period is a yes: '
        '"NO" and "maybe" too.',
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        paths = sorted(pathlib.Path(folder).glob("*_pope_*.json"), key=_split_order)
        if not paths:
            raise UserError(
                f"POPE: there is no file *_pope_*.json in {folder}; "
                "put the official ones there (coco_pope_random.json and the like)."
            )
        questions = []
        for path in paths:
            for position, row in enumerate(read_jsonl(path, "POPE questions"), start=1):
                where = f"POPE questions {path}, question {position}"
                require_fields(row, ["image", "text"], where)
                label = row.get("label")
                if label not in ("yes", "no", None):
                    raise UserError(f"{where}: label {label!r} is neither 'yes' nor 'no'.")
                questions.append(
                    Question(
                        question_id=f"{_split(path)}/{position}",
                        text=row["text"] + SHORT_ANSWER,
                        image=find_picture(images, [row["image"]], where),
                        truth=label,
                        kind=str(row.get("kind", "existence")),
                        novel=bool(row.get("novel_combination", False)),
                        picture=str(row["image"]),
                    )
                )
        return questions

    def correct(self, question: Question, answer: str) -> bool:
        return parse_yes_no(answer) == question.truth

    def expected(self, question: Question) -> str:
        return question.truth

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """F1, accuracy, precision, recall ("yes" is positive) and yes_ratio, each x 100: the mean
        over the splits, and each split's own as `random/f1`. A ratio 0/0 counts as 0."""
        require_questions(questions, self.name)
        parse = first_yes_or_no if strict else parse_yes_no
        by_split: dict[str, list[tuple[str, str]]] = {}
        for question in questions:
            pair = (parse(answer_of(question, answers, self.name)), question.truth)
            by_split.setdefault(question.question_id.split("/")[0], []).append(pair)
        splits = {split: _figures(pairs) for split, pairs in by_split.items()}
        names = ("f1", "accuracy", "precision", "recall", "yes_ratio")
        mean = {name: sum(f[name] for f in splits.values()) / len(splits) for name in names}
        own = {f"{split}/{name}": splits[split][name] for split in splits for name in names}
        return {**mean, **own}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        """F1, the mean over the splits; a picture is drawn with its questions in all of them."""
        splits = list(dict.fromkeys(q.question_id.split("/")[0] for q in questions))
        parts = np.zeros((len(questions), len(splits), 2))
        for row, question in enumerate(questions):
            said, truth = parse_yes_no(answers[question.question_id]), question.truth
            split = splits.index(question.question_id.split("/")[0])
            parts[row, split] = said == truth == "yes", (said == "yes") + (truth == "yes")
        tally = make_tally(
            [cluster_of(question) for question in questions],
            parts.reshape(len(questions), -1),
            lambda s: 200 * ratio(s[..., 0::2], s[..., 1::2]).mean(axis=-1),
        )
        return {"f1": tally}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """For each split the answer file of POPE's `evaluate.py`: JSON lines {question, answer}."""
        lines: dict[str, list[str]] = {}
        for question in questions:
            row = {
                "question": question.text.removesuffix(SHORT_ANSWER),
                "answer": answers[question.question_id],
            }
            split = question.question_id.split("/")[0]
            lines.setdefault(split, []).append(json.dumps(row, ensure_ascii=False) + "\n")
        return {f"pope_{split}_answers.json": "".join(rows) for split, rows in lines.items()}


def _figures(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    true_yes = sum(predicted == truth == "yes" for predicted, truth in pairs)
    said_yes = sum(predicted == "yes" for predicted, _ in pairs)
    are_yes = sum(truth == "yes" for _, truth in pairs)
    right = sum(predicted == truth for predicted, truth in pairs)
    return {
        "f1": _ratio(2 * true_yes, said_yes + are_yes),
        "accuracy": _ratio(right, len(pairs)),
        "precision": _ratio(true_yes, said_yes),
        "recall": _ratio(true_yes, are_yes),
        "yes_ratio": _ratio(said_yes, len(pairs)),
    }


def _ratio(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _split(path: pathlib.Path) -> str:
    return path.stem.removeprefix("coco_pope_")


def _split_order(path: pathlib.Path) -> tuple[int, str]:
    split = _split(path)
    return (_SPLITS.index(split) if split in _SPLITS else len(_SPLITS), split)
