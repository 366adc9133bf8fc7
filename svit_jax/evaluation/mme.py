"""MME: two yes/no questions a picture in fourteen subtasks; acc + acc+, perception, cognition."""

import pathlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.evaluation.archives import ZippedPicture, archives_in, folder_in_zip
from svit_jax.evaluation.benchmark import (
    SHORT_ANSWER,
    Question,
    answer_of,
    percent,
    require_questions,
)
from svit_jax.evaluation.choices import first_yes_or_no
from svit_jax.evaluation.intervals import Tally, make_tally, ratio

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)

_YES_OR_NO = re.compile(r"\s*Please answer yes or no\.$")
_PICTURES = (".png", ".jpg", ".jpeg")

Row = tuple[str, str, str]
Folder = pathlib.Path | zipfile.Path
"""The two are walked and read in the same way."""


def parse_yes_no(answer: str) -> str:
    """ "yes", "no" or "other" as MME's `calculation.py` reads the answer.

    Lowercased: exactly yes or no; otherwise what stands in the first four characters, yes first
    ("know" reads as no).
    """
    text = answer.lower()
    if text in ("yes", "no"):
        return text
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def prompt_of(question: str) -> str:
    """The question as LLaVA-1.5 asks it: " Please answer yes or no." replaced by its suffix."""
    return _YES_OR_NO.sub("", question) + SHORT_ANSWER


@dataclass(frozen=True)
class MME:
    """Reads one folder a subtask, flat (`count/1.png`, `count/1.txt`) or in two (`images/`,
    `questions_answers_YN/`), on disk or in the release's zip; its other folders are ignored.

    Where `<subtask>.txt` (the official results template: picture, question, answer) stands beside
    the folder, its rows give the questions and their order. A picture has exactly two questions:
    their ids are `count/1.png#1` and `#2`. Pictures lie beside the questions, so `images` only
    says whether they are wanted (None: no).
    """

    name: str = "mme"
    quirks = (
        'An answer is read from its first four characters: "know" and "not" as no, "eyes" as yes.',
        "acc+ counts pairs of consecutive lines as one picture, whatever picture they name.",
    )

    def read(self, folder: PathLike, images: PathLike | None) -> list[Question]:
        root = _release_in(pathlib.Path(folder))
        subtasks = [name for name in PERCEPTION + COGNITION if (root / name).is_dir()]
        return [
            question
            for subtask in subtasks
            for question in _read_subtask(root, subtask, with_pictures=images is not None)
        ]

    def correct(self, question: Question, answer: str) -> bool:
        return parse_yes_no(answer) == self.expected(question)

    def expected(self, question: Question) -> str:
        return question.truth["answer"].lower()

    def score(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool = False
    ) -> dict[str, float]:
        """For each subtask 100 acc + 100 acc+ (0..200): acc over its questions, acc+ over its
        pictures with both questions right; `perception` and `cognition` are the sums over the
        subtasks that are there, with their attainable maximum."""
        require_questions(questions, self.name)
        figures = {}
        for subtask, pairs in self._pairs(questions, answers, strict).items():
            accuracy = percent([float(verdict) for pair in pairs for verdict in pair])
            figures[subtask] = accuracy + percent([float(all(pair)) for pair in pairs])
        totals = {}
        for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
            present = [figures[subtask] for subtask in members if subtask in figures]
            if present:
                totals[name] = sum(present)
                totals[f"{name}_maximum"] = 200.0 * len(present)
        return {**totals, **figures}

    def _pairs(
        self, questions: Sequence[Question], answers: Mapping[str, str], strict: bool
    ) -> dict[str, list[list[bool]]]:
        """Each subtask's verdicts in twos: of consecutive rows or, strictly, of a picture."""
        parse = first_yes_or_no if strict else parse_yes_no
        verdicts: dict[str, dict[object, list[bool]]] = {}
        rows: Counter[str] = Counter()
        for question in questions:
            subtask = _subtask_of(question)
            right = parse(answer_of(question, answers, self.name)) == self.expected(question)
            pair = question.truth["picture"] if strict else rows[subtask] // 2
            verdicts.setdefault(subtask, {}).setdefault(pair, []).append(right)
            rows[subtask] += 1
        return {subtask: list(pairs.values()) for subtask, pairs in verdicts.items()}

    def tallies(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, Tally]:
        """Perception and cognition, pictures drawn within their subtask."""
        found = {}
        for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
            own = [q for q in questions if _subtask_of(q) in members]
            pairs = self._pairs(own, answers, strict=False) if own else {}
            flat = [(subtask, pair) for subtask in pairs for pair in pairs[subtask]]
            parts = np.zeros((len(flat), len(pairs), 2))
            for row, (subtask, pair) in enumerate(flat):
                # Both of the score's halves are means over pictures, which have two questions each.
                parts[row, list(pairs).index(subtask)] = sum(pair) / 2 + all(pair), 1.0
            if flat:
                found[name] = make_tally(
                    range(len(flat)),
                    parts.reshape(len(flat), -1),
                    lambda s: 100 * ratio(s[..., 0::2], s[..., 1::2]).sum(axis=-1),
                    [subtask for subtask, _ in flat],
                )
        return found

    def submission(
        self, questions: Sequence[Question], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """A text for each subtask: lines of picture, question, truth and answer, by tabs."""
        lines: dict[str, list[str]] = {}
        for question in questions:
            truth = question.truth
            answer = " ".join(answers[question.question_id].split())
            row = (truth["picture"], truth["question"], truth["answer"], answer)
            lines.setdefault(_subtask_of(question), []).append("\t".join(row) + "\n")
        return {f"{subtask}.txt": "".join(rows) for subtask, rows in lines.items()}


def _subtask_of(question: Question) -> str:
    return question.question_id.split("/")[0]


def _release_in(root: pathlib.Path) -> Folder:
    """The folder of the subtasks' folders: `root`, or one in a zip file there."""
    subtasks = PERCEPTION + COGNITION
    if any((root / name).is_dir() for name in subtasks):
        return root
    archives = archives_in(root)
    for archive in archives:
        release = folder_in_zip(archive, subtasks)
        if release is not None:
            return release
    looked = ", ".join(archive.name for archive in archives) or "no zip file"
    raise UserError(
        f"MME: {root} holds none of the subtasks' folders ({', '.join(subtasks)}), but {looked}; "
        "give the official release's folder, or put its zip there."
    )


def _read_subtask(root: Folder, subtask: str, with_pictures: bool) -> Iterator[Question]:
    folder = root / subtask
    split_in_two = (folder / "questions_answers_YN").is_dir()
    pictures = folder / "images" if split_in_two else folder
    template = root / f"{subtask}.txt"
    if template.is_file():
        rows = [(row[0], row[1], row[2]) for row in _read_rows(template, columns=3)]
    else:
        texts = folder / "questions_answers_YN" if split_in_two else folder
        rows = list(_rows_beside_pictures(texts, pictures))
    seen: dict[str, int] = {}
    for picture, question, answer in rows:
        if answer.lower() not in ("yes", "no"):
            raise UserError(
                f"MME {subtask}, {picture}: the answer {answer!r} is neither Yes nor No; "
                "is this the official file?"
            )
        if with_pictures and not (pictures / picture).is_file():
            raise UserError(f"MME {subtask}: there is no picture {pictures / picture}.")
        seen[picture] = seen.get(picture, 0) + 1
        yield Question(
            question_id=f"{subtask}/{picture}#{seen[picture]}",
            text=prompt_of(question),
            image=_picture(pictures / picture) if with_pictures else None,
            truth={"answer": answer, "question": question, "picture": picture},
            kind=subtask,
            picture=f"{subtask}/{picture}",
        )
    for picture, count in seen.items():
        if count != 2:
            raise UserError(
                f"MME {subtask}, {picture}: found {count} questions, expected two; "
                "acc+ needs both, so fetch the official files again."
            )


def _picture(path: Folder) -> pathlib.Path | ZippedPicture:
    if isinstance(path, pathlib.Path):
        return path
    return ZippedPicture(pathlib.Path(str(path.root.filename)), path.at)


def _rows_beside_pictures(texts: Folder, pictures: Folder) -> Iterator[Row]:
    files: list[Folder] = [path for path in texts.iterdir() if path.name.endswith(".txt")]
    for path in sorted(files, key=lambda file: file.name):
        names = [path.name.removesuffix(".txt") + suffix for suffix in _PICTURES]
        picture = next((name for name in names if (pictures / name).is_file()), names[0])
        for row in _read_rows(path, columns=2):
            yield picture, row[0], row[1]


def _read_rows(path: Folder, columns: int) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        row = tuple(line.strip().split("\t"))
        if len(row) < columns:
            raise UserError(
                f"MME file {path}, line {number}: expected {columns} columns separated by tabs, "
                f"found {len(row)}."
            )
        yield row
