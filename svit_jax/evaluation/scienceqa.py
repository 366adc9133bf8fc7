"""ScienceQA: school questions with options, half with a picture; LLaVA's parse and results file."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.evaluation.benchmark import (
    Question,
    answer_of,
    find_picture,
    mean_over,
    percent,
    require_fields,
    require_questions,
)
from svit_jax.evaluation.choices import LETTER_ANSWER, LETTERS, lettered, named_letter
from svit_jax.evaluation.intervals import Tally

FAILED = "FAILED"

# The last period stands unescaped in LLaVA's script: any character but a line break will do, and
# one must be there.
_SENTENCE = re.compile("The answer is ([A-Z]).")


def parse_letter(answer: str) -> str:
    """The letter as LLaVA's `eval_science_qa.py` reads it, or "FAILED".

    A letter of A to E alone; or one followed by ". "; or the X of a single "The answer is X.". A
    lowercase letter, or "A." alone, fails.
    """
    if len(answer) == 1 and answer in LETTERS:
        return answer
    if len(answer) >= 3 and answer[0] in LETTERS and answer[1:3] == ". ":
        return answer[0]
    found = _SENTENCE.findall(answer)
    return found[0] if len(found) == 1 else FAILED


def prompt_of(problem: Mapping[str, Any]) -> str:
    """The form CQM-A: the hint as context where there is one, the question, the options."""
    context = f"Context: {problem['hint']}\n" if problem["hint"] else ""
    return (context + problem["question"] + lettered(problem["choices"])).strip() + LETTER_ANSWER


@dataclass(frozen=True)
class ScienceQA:
    """Reads `problems.json` and the split's ids from `pid_splits.json`, both of the release.

    A picture is `ID/image.png` under the images folder or its `test/`. A question without a picture
    is asked as text alone, as LLaVA does.
    """

    name: str = "scienceqa"
    quirks = (
        'A lowercase letter, or "A." alone, is read as no answer.',
        'The period in "The answer is A." is any character, and one must be there.',
    )
    split: str = "test"

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        root = pathlib.Path(folder)
        problems = read_json(root / "problems.json", "ScienceQA problems")
        splits = read_json(root / "pid_splits.json", "ScienceQA splits")
        require_fields(splits, [self.split], f"ScienceQA splits {root / 'pid_splits.json'}")
        require_fields(problems, splits[self.split], f"ScienceQA problems {root / 'problems.json'}")
        return [self._question(str(key), problems[key], images) for key in splits[self.split]]

    def _question(self, key: str, row: Any, images: PathLike | None) -> Question:
        where = f"ScienceQA problem {key}"
        require_fields(row, ["question", "choices", "answer", "hint", "image"], where)
        count = len(row["choices"])
        if count > len(LETTERS) or row["answer"] not in range(count):
            raise UserError(
                f"{where}: the answer {row['answer']!r} is not the place of one of its {count} "
                f"choices (at most {len(LETTERS)}); is this the official file?"
            )
        has_picture = row["image"] is not None
        image = None
        if has_picture:
            name = f"{key}/{row['image']}"
            image = find_picture(images, [name, f"{self.split}/{name}"], where)
        return Question(
            question_id=key,
            text=prompt_of(row),
            image=image,
            truth={"letter": LETTERS[row["answer"]], "choices": count},
            kind=str(row.get("kind") or row.get("subject", "question")),
            novel=bool(row.get("novel_combination", False)),
            has_picture=has_picture,
        )

    def correct(self, question: Question, answer: str) -> bool:
        return parse_letter(answer) == self.expected(question)

    def expected(self, question: Question) -> str:
        return question.truth["letter"]

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """Accuracy x 100: `image_accuracy` over the questions with a picture (the published
        ScienceQA-IMG, there if any has one), `accuracy` over all."""
        require_questions(questions, self.name)
        given = [answer_of(question, answers, self.name) for question in questions]
        if strict:
            given = [
                named_letter(answer, question.truth["choices"]) or FAILED
                for question, answer in zip(questions, given, strict=True)
            ]
        right = [float(self.correct(q, answer)) for q, answer in zip(questions, given, strict=True)]
        with_picture = [r for q, r in zip(questions, right, strict=True) if q.has_picture]
        image = {"image_accuracy": percent(with_picture)} if with_picture else {}
        return {**image, "accuracy": percent(right)}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        shown = [question for question in questions if question.has_picture]
        image = {"image_accuracy": mean_over(shown, self.correct, answers)} if shown else {}
        return {**image, "accuracy": mean_over(questions, self.correct, answers)}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """LLaVA's results file: acc, correct, count, results (id -> place of the choice, or -1),
        outputs (id -> answer)."""
        outputs = {q.question_id: answers.get(q.question_id, FAILED) for q in questions}
        correct = sum(self.correct(q, outputs[q.question_id]) for q in questions)
        results = {q.question_id: _place(q, outputs[q.question_id]) for q in questions}
        content = {
            "acc": 100.0 * correct / len(questions),
            "correct": correct,
            "count": len(questions),
            "results": results,
            "outputs": outputs,
        }
        return {"scienceqa_results.json": json.dumps(content, indent=2) + "\n"}


def _place(question: Question, answer: str) -> int:
    letter = parse_letter(answer)
    options = LETTERS[: question.truth["choices"]]
    return options.index(letter) if letter in options else -1
