"""MM-Vet: open questions that need several capabilities at once, graded 0 to 1 by a judge."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.evaluation.benchmark import (
    Question,
    cluster_of,
    find_file,
    find_picture,
    require_fields,
)
from svit_jax.evaluation.intervals import Tally, mean_tally
from svit_jax.evaluation.judged import Ask, Grade, NeedsJudge, Review, Told

_EVALUATORS = ("mm-vet_evaluator.py", "mm-vet_evaluator.ipynb")
_AGAIN = "\nPredict the correctness of the answer (digit): "
"""What the official evaluator appends once a reply was no number."""


@dataclass(frozen=True)
class MMVet(NeedsJudge):
    """Reads `mm-vet.json`, and for the judge the official evaluator, whose few-shot prompt it is
    told: `mm-vet_evaluator.py` (or `.ipynb`) in the same folder."""

    name: str = "mmvet"
    judge: str = "gpt-4-0613"
    # The official loop warms up with each retry; its sixth reply is never read.
    temperatures: tuple[float, ...] = (0.0, 0.0, 0.5, 1.0, 1.5)
    reply_tokens: int = 3
    unreadable: Grade = (0.0,)

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        return [
            Question(
                question_id=name,
                text=row["question"],
                image=find_picture(
                    images, [row["imagename"], f"images/{row['imagename']}"], f"MM-Vet, {name}"
                ),
                truth=None,
                kind="+".join(row["capability"]),
                picture=row["imagename"],
            )
            for name, row in _rows(folder).items()
        ]

    def ask(self, folder: PathLike) -> Ask:
        told, rows = _official_prompt(Path(folder)), _rows(folder)

        def prompt(question: Question, answer: str, attempt: int) -> Told:
            truth = rows[question.question_id]["answer"]
            truth = truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
            asked = told + "\n" + " | ".join([question.text, truth, answer, ""])
            return Told("", asked + _AGAIN if attempt else asked)

        return prompt

    def grade(self, reply: str) -> Grade | None:
        """The number before the first space, if it is one from 0 to 1."""
        try:
            grade = float(reply.split(" ")[0].strip())
        except ValueError:
            return None
        return (grade,) if 0.0 <= grade <= 1.0 else None

    def figures(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Grade]]
    ) -> dict[str, float]:
        """Mean grade x 100: `total`, each capability and each combination of them ("ocr alone":
        no other), the means over the runs; with several runs `total_std` over them too."""
        members: dict[str, list[str]] = {"total": []}
        for question in questions:
            capabilities = question.kind.split("+")
            together = "+".join(sorted(capabilities))
            alone = len(capabilities) == 1
            for name in ("total", *capabilities, f"{together} alone" if alone else together):
                members.setdefault(name, []).append(question.question_id)
        by_run = {
            name: [100 * sum(run[key][0] for key in keys) / len(keys) for run in runs]
            for name, keys in members.items()
        }
        found = {name: float(np.mean(values)) for name, values in by_run.items()}
        return found | ({"total_std": float(np.std(by_run["total"]))} if len(runs) > 1 else {})

    def graded_tallies(
        self, questions: Sequence[Question], grades: Mapping[str, Grade]
    ) -> dict[str, Tally]:
        credits = [grades[question.question_id][0] for question in questions]
        return {"total": mean_tally(credits, [cluster_of(question) for question in questions])}

    def reviews(
        self, questions: Sequence[Question], runs: Sequence[Mapping[str, Review]], judge: str
    ) -> dict[str, str]:
        """The official file of grades: {id: {model, content, score}}, a list entry a run."""
        rows = {
            q.question_id: {
                "model": [judge] * len(runs),
                "content": [run[q.question_id].reply for run in runs],
                "score": [run[q.question_id].grade[0] for run in runs],
            }
            for q in questions
        }
        return {f"mmvet_{judge}-grade-{len(runs)}runs.json": json.dumps(rows, indent=4) + "\n"}

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """The official results file {id: answer}, which the online evaluator takes too."""
        found = {q.question_id: answers[q.question_id] for q in questions}
        return {"mmvet_results.json": json.dumps(found, indent=2, ensure_ascii=False) + "\n"}


def _rows(folder: PathLike) -> dict[str, Any]:
    path = find_file(folder, "mm-vet.json", "mm-vet.json", "MM-Vet questions")
    rows = read_json(path, "MM-Vet questions")
    if not isinstance(rows, dict):
        raise UserError(f"MM-Vet questions {path}: expected an object of questions by id.")
    for name, row in rows.items():
        fields = ["imagename", "question", "answer", "capability"]
        require_fields(row, fields, f"MM-Vet questions {path}, {name}")
    return rows


def _official_prompt(folder: Path) -> str:
    """The text that the official evaluator, a script or a notebook, assigns to `prompt`."""
    path = next((folder / name for name in _EVALUATORS if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"MM-Vet: the judge is told what the official evaluator tells it; put "
            f"{' or '.join(_EVALUATORS)} of github.com/yuweihao/MM-Vet into {folder}."
        )
    text = path.read_text()
    cells = [text]
    try:
        if path.suffix == ".ipynb":
            cells = [
                "".join(cell["source"])
                for cell in json.loads(text)["cells"]
                if cell["cell_type"] == "code"
            ]
        for cell in cells:
            for node in _statements(cell):
                match node:
                    case ast.Assign(targets=[ast.Name(id="prompt")], value=ast.Constant(str(told))):
                        return told
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"MM-Vet: {path} assigns no text to `prompt`; is this the official evaluator?")


def _statements(cell: str) -> list[ast.stmt]:
    """Those of a notebook's cell; none where it isn't Python alone (`!pip install ...`)."""
    try:
        return ast.parse(cell).body
    except SyntaxError:
        return []
