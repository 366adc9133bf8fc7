"""LLaVA-Bench (in the wild): open questions; a judge compares each answer with GPT-4's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, read_jsonl
from svit_jax.evaluation.benchmark import (
    Question,
    cluster_of,
    find_file,
    find_picture,
    require_fields,
)
from svit_jax.evaluation.intervals import Tally, make_tally, ratio
from svit_jax.evaluation.judged import Ask, Grade, NeedsJudge, Review, Told

_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
"""What LLaVA's eval_gpt_review_bench.py tells the judge that it is."""


@dataclass(frozen=True)
class LLaVABench(NeedsJudge):
    """Reads `questions.jsonl`; for the judge also `context.jsonl` (what is in the pictures),
    `answers_gpt4.jsonl`, and LLaVA's `rule.json`, which holds what it is told."""

    name: str = "llava_bench"
    judge: str = "gpt-4-0314"
    temperatures: tuple[float, ...] = (0.2,)
    reply_tokens: int = 1024
    unreadable: Grade = (-1.0, -1.0)
    quirks: tuple[str, ...] = (
        "A review that can't be read counts as -1 for both sides, and stays in the mean.",
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        return [
            Question(
                question_id=str(row["question_id"]),
                text=row["text"],
                image=find_picture(
                    images,
                    [row["image"], f"images/{row['image']}"],
                    f"LLaVA-Bench, question {row['question_id']}",
                ),
                truth=None,
                kind=row["category"],
                picture=row["image"],
            )
            for row in _lines(
                folder, "questions.jsonl", ["question_id", "image", "text", "category"]
            )
        ]

    def ask(self, folder: PathLike) -> Ask:
        rules = read_json(
            find_file(folder, "rule.json", "rule.json", "LLaVA's rules for the judge"), "rules"
        )
        contexts = {
            row["image"]: row["caption"]
            for row in _lines(folder, "context.jsonl", ["image", "caption"])
        }
        references = {
            str(row["question_id"]): row["text"]
            for row in _lines(folder, "answers_gpt4.jsonl", ["question_id", "text"])
        }

        def prompt(question: Question, answer: str, attempt: int) -> Told:
            where = f"LLaVA-Bench, question {question.question_id}"
            for what, known, key in (
                ("rule.json", rules, _category(question)),
                ("context.jsonl", contexts, question.picture),
                ("answers_gpt4.jsonl", references, question.question_id),
            ):
                if key not in known:
                    raise UserError(f"{where}: {what} has no '{key}'; take the official file.")
            rule, context = rules[_category(question)], contexts[question.picture]
            require_fields(rule, ["role", "prompt"], "LLaVA's rules")
            caption = "\n".join(context) if isinstance(context, list) else context
            role = rule["role"]
            sides = "".join(
                f"[{role} {n}]\n{text}\n\n[End of {role} {n}]\n\n"
                for n, text in enumerate((references[question.question_id], answer), start=1)
            )
            return Told(
                _SYSTEM,
                f"[Context]\n{caption}\n\n[Question]\n{question.text}\n\n{sides}"
                f"[System]\n{rule['prompt']}\n\n",
            )

        return prompt

    def grade(self, reply: str) -> Grade | None:
        """The two numbers of the first line, GPT-4's and the answer's."""
        found = reply.split("\n")[0].replace(",", " ").split(" ")
        try:
            reference, ours = (float(number) for number in found)
        except ValueError:
            return None
        return reference, ours

    def figures(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Grade]]
    ) -> dict[str, float]:
        """`all` and each category: the answers' mean grade in per cent of GPT-4's, rounded as
        LLaVA's summarize_gpt_review.py does; `gpt4` and `model` are the means x 10."""
        members: dict[str, list[str]] = {"all": []}
        for question in questions:
            for name in ("all", question.kind):
                members.setdefault(name, []).append(question.question_id)
        found: dict[str, float] = {}
        for name, keys in members.items():
            sides = zip(*(run[key] for run in runs for key in keys), strict=True)
            reference, ours = (round(sum(side) / len(side), 3) for side in sides)
            if reference:
                found[name] = round(ours / reference * 100, 1)
            if name == "all":
                found |= {"gpt4": round(reference * 10, 1), "model": round(ours * 10, 1)}
        return found

    def graded_tallies(
        self, questions: Sequence[Question], grades: Mapping[str, Grade]
    ) -> dict[str, Tally]:
        tally = make_tally(
            [cluster_of(question) for question in questions],
            [grades[question.question_id] for question in questions],
            lambda s: 100 * ratio(s[..., 1], s[..., 0]),
        )
        return {"all": tally}

    def reviews(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Review]], judge: str
    ) -> dict[str, str]:
        """LLaVA's file of reviews of each run, which summarize_gpt_review.py reads."""

        def line(number: int, question: Question, review: Review) -> str:
            row: dict[str, Any] = {
                "id": number,
                "question_id": question.question_id,
                "category": _category(question),
                "content": review.reply,
                "tuple": list(review.grade),
            }
            return json.dumps(row) + "\n"

        return {
            f"review_{judge}_{place}.jsonl": "".join(
                line(number, question, run[question.question_id])
                for number, question in enumerate(questions, start=1)
            )
            for place, run in enumerate(runs, start=1)
        }

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        return {}


def _category(question: Question) -> str:
    return f"llava_bench_{question.kind}"


def _lines(folder: PathLike, name: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    what = f"LLaVA-Bench's {name}"
    rows = list(read_jsonl(find_file(folder, name, name, what), what))
    for number, row in enumerate(rows, start=1):
        require_fields(row, fields, f"{what}, line {number}")
    return rows
