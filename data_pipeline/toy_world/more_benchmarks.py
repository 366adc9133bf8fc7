"""TextVQA, VizWiz and MMMU about the held-out toy scenes, in their official layouts."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from etils import epath

from data_pipeline.toy_world.questions import Balance, Kind, Question
from data_pipeline.toy_world.world import CELLS, COLOURS, SHAPES, ToyScene
from data_pipeline.toy_world.write import Row, write_compact_json

_SHARES: Mapping[Kind, float] = {"color": 1.0, "shape": 1.0, "count": 1.0, "position": 1.0}
_SUBJECTS: Mapping[Kind, str] = {
    "color": "Art",
    "shape": "Math",
    "count": "Accounting",
    "position": "Geography",
}
_CHOICES: Mapping[Kind, Sequence[str]] = {"color": COLOURS, "shape": SHAPES, "position": CELLS}
_OPTIONS = 4
_ANNOTATORS = 10
_SCENES_PER_UNANSWERABLE = 4


def write_more_benchmarks(
    folder: epath.Path, scenes: Sequence[ToyScene], seed: int
) -> dict[str, int]:
    """Writes textvqa/, vizwiz/ and mmmu/, a question a scene; returns how many each holds."""
    return {
        "textvqa": _write_textvqa(folder / "textvqa", scenes, seed),
        "vizwiz": _write_vizwiz(folder / "vizwiz", scenes, seed),
        "mmmu": _write_mmmu(folder / "mmmu", scenes, seed),
    }


def _write_textvqa(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    """Writes no OCR file: toy pictures hold no text, and an empty OCR line would be a prompt that
    no toy model was taught."""
    rows: list[Row] = []
    for number, (scene, question) in enumerate(_asked(scenes, f"{seed}/textvqa")):
        rows.append(
            {
                "question_id": number,
                "image_id": str(scene.image_id),
                "image_file": scene.image_file,
                "question": question.text,
                "answers": [question.answer] * _ANNOTATORS,
                "set_name": "val",
                **_marks(question),
            }
        )
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    write_compact_json(folder / "TextVQA_0.5.1_val.json", {**head, "data": rows})
    return len(rows)


def _write_vizwiz(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    """Every fourth question asks for the colour of a shape that is not there."""
    rows: list[Row] = []
    for number, (scene, question) in enumerate(_asked(scenes, f"{seed}/vizwiz")):
        unanswerable = number % _SCENES_PER_UNANSWERABLE == 0
        text, answer, kind = question.text, question.answer, "other"
        if question.kind == "count":
            kind = "number"
        if unanswerable:
            absent = sorted(set(SHAPES) - {thing.shape for thing in scene.objects})
            shape = random.Random(f"{seed}/vizwiz/{scene.image_id}").choice(absent)
            text, answer, kind = f"What color is the {shape}?", "unanswerable", "unanswerable"
        rows.append(
            {
                "image": scene.image_file,
                "question": text,
                "answers": [{"answer": answer, "answer_confidence": "yes"}] * _ANNOTATORS,
                "answer_type": kind,
                "answerable": int(not unanswerable),
                **({"kind": kind} if unanswerable else _marks(question)),
            }
        )
    write_compact_json(folder / "val.json", rows)
    return len(rows)


def _write_mmmu(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    """Writes the JSON export: counts are open questions, the other kinds have four options, the
    true one behind each letter in turn."""
    rows: list[Row] = []
    numbers: Counter[str] = Counter()
    for scene, question in _asked(scenes, f"{seed}/mmmu"):
        subject = _SUBJECTS[question.kind]
        numbers[subject] += 1
        row: Row = {
            "id": f"validation_{subject}_{numbers[subject]}",
            "question": f"<image 1> {question.text}",
            "options": [],
            "answer": question.answer,
            "question_type": "short-answer",
            "image": scene.image_file,
            **_marks(question),
        }
        if question.kind in _CHOICES:
            place = numbers[subject] % _OPTIONS
            others = [text for text in _CHOICES[question.kind] if text != question.answer]
            rng = random.Random(f"{seed}/mmmu/{row['id']}")
            options = rng.sample(others, _OPTIONS - 1)
            options.insert(place, question.answer)
            row |= {
                "options": options,
                "answer": chr(ord("A") + place),
                "question_type": "multiple-choice",
            }
        rows.append(row)
    write_compact_json(folder / "validation.json", rows)
    return len(rows)


def _asked(scenes: Sequence[ToyScene], seed: str) -> list[tuple[ToyScene, Question]]:
    balance = Balance(seed)
    return [(scene, balance.choose(scene, _SHARES, 1)[0]) for scene in scenes]


def _marks(question: Question) -> Row:
    return {"kind": question.kind, "novel_combination": question.novel}
