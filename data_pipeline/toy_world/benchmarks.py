"""The toy world's held-out questions in the official layouts of the benchmarks."""

import random
from collections.abc import Mapping, Sequence

from etils import epath

from data_pipeline.common.boxes import expand_to_square, normalise_box
from data_pipeline.common.files import write_jsonl, write_text
from data_pipeline.toy_world.draw import encode_scene
from data_pipeline.toy_world.questions import Balance, Kind, Question, questions_about
from data_pipeline.toy_world.world import HELD_OUT_PAIRS, ToyScene
from data_pipeline.toy_world.write import Row, write_bytes, write_compact_json, write_vqa

VQAV2_SHARES: Mapping[Kind, float] = {
    "color": 1.0,
    "shape": 1.0,
    "count": 1.0,
    "position": 1.0,
    "size": 1.0,
    "existence": 0.5,
    "relation": 0.5,
}
GQA_SHARES: Mapping[Kind, float] = {
    "color": 1.0,
    "shape": 1.0,
    "position": 1.0,
    "size": 1.0,
    "relation": 2.0,
}
MME_SUBTASKS = ("existence", "count", "position", "color")

_QUESTIONS_PER_SCENE = 3
_BOXES_PER_SCENE = 2
_MME_PICTURES = 30
# MME and POPE ask for yes or no alone; at this share of MME pictures the open questions of VQAv2
# and GQA stay the greater half of all.
_SCENES_PER_MME_PICTURE = 5
_GQA_SEMANTIC = {
    "color": "attr",
    "size": "attr",
    "shape": "cat",
    "position": "rel",
    "relation": "rel",
}


def write_benchmarks(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> dict[str, int]:
    """Writes vqav2/, gqa/, mme/, pope/ and referring/; returns how many questions each holds.

    Every row has the extra keys "kind" and "novel_combination"; MME's text files have no room.
    """
    return {
        "vqav2": _write_vqav2(folder / "vqav2", scenes, seed),
        "gqa": _write_gqa(folder / "gqa", scenes, seed),
        "mme": _write_mme(folder / "mme", scenes, seed),
        "pope": _write_pope(folder / "pope", scenes, seed),
        "referring": _write_referring(folder / "referring", scenes, seed),
    }


def _write_vqav2(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    balance = Balance(f"{seed}/vqav2")
    asked = ((s, balance.choose(s, VQAV2_SHARES, _QUESTIONS_PER_SCENE)) for s in scenes)
    return write_vqa(folder, asked, "val2014")


def _write_gqa(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    balance = Balance(f"{seed}/gqa")
    questions: dict[str, Row] = {}
    for scene in scenes:
        chosen = balance.choose(scene, GQA_SHARES, _QUESTIONS_PER_SCENE)
        for number, question in enumerate(chosen):
            questions[str(1000 * scene.image_id + number)] = {
                "question": question.text,
                "answer": question.answer,
                "imageId": str(scene.image_id),
                "isBalanced": True,
                "types": {
                    "semantic": _GQA_SEMANTIC[question.kind],
                    "structural": "verify" if question.kind == "relation" else "query",
                    "detailed": question.kind,
                },
                "fullAnswer": _full_answer(question),
                "image_file": scene.image_file,
                "kind": question.kind,
                "novel_combination": question.novel,
            }
    write_compact_json(folder / "questions.json", questions)
    return len(questions)


def _full_answer(question: Question) -> str:
    if question.kind == "position":
        return f"It is in the {question.answer}."
    if question.kind == "relation":
        return f"{question.answer.capitalize()}, it is{'' if question.answer == 'yes' else ' not'}."
    return f"It is {question.answer}."


def _write_mme(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    """Writes MME's flat layout: `<subtask>/<id>.jpg` beside `<id>.txt`, a Yes and a No of the same
    kind on each picture."""
    total = 0
    wanted = min(_MME_PICTURES, max(1, len(scenes) // _SCENES_PER_MME_PICTURE))
    for subtask in MME_SUBTASKS:
        rng = random.Random(f"{seed}/mme/{subtask}")
        balance = Balance(f"{seed}/mme/{subtask}/answers")
        written = 0
        for scene in rng.sample(scenes, len(scenes)):
            if written == wanted:
                break
            couples = _mme_couples(scene, subtask)
            if not couples:
                continue
            yes = balance.take(list(couples))
            no = balance.take(couples[yes])
            lines = [
                f"{question.text} Please answer yes or no.\t{question.answer.capitalize()}\n"
                for question in (yes, no)
            ]
            write_text(folder / subtask / f"{scene.image_id}.txt", "".join(lines))
            write_bytes(folder / subtask / f"{scene.image_id}.jpg", encode_scene(scene))
            written += 1
        total += 2 * written
    return total


def _mme_couples(scene: ToyScene, subtask: str) -> dict[Question, list[Question]]:
    """Each question of the subtask whose answer is yes, with its near misses whose answer is no."""
    questions = questions_about(scene)

    def near_miss(yes: Question, no: Question) -> bool:
        if (yes.kind, yes.form) != (no.kind, no.form):
            return False
        if subtask == "existence":
            return yes.about[0][0] == no.about[0][0]
        if subtask == "color":
            return yes.about[0][1] == no.about[0][1]
        if subtask == "count":
            return yes.counted == no.counted
        return yes.about == no.about[::-1]

    kind, form = {
        "existence": ("existence", "pair"),
        "color": ("existence", "pair"),
        "count": ("existence", "number"),
        "position": ("relation", None),
    }[subtask]
    of_kind = [q for q in questions if q.kind == kind and form in (None, q.form)]
    couples = {
        yes: [no for no in of_kind if no.answer == "no" and near_miss(yes, no)]
        for yes in of_kind
        if yes.answer == "yes"
    }
    return {yes: misses for yes, misses in couples.items() if misses}


def _write_pope(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    balance = Balance(f"{seed}/pope")
    rows: list[Row] = []
    for scene in scenes:
        for question in balance.choose(scene, {"existence": 1.0}, 1, lambda q: q.form == "pair"):
            rows.append(
                {
                    "question_id": len(rows) + 1,
                    "image": scene.image_file,
                    "text": question.text,
                    "label": question.answer,
                    "kind": question.kind,
                    "novel_combination": question.novel,
                }
            )
    return write_jsonl(folder / "coco_pope_random.json", rows)


def _write_referring(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    """Writes boxes as fractions of the padded square, as LLaVA-1.5's format has them."""
    rows: list[Row] = []
    for scene in scenes:
        rng = random.Random(f"{seed}/referring/{scene.image_id}")
        things = rng.sample(scene.objects, len(scene.objects))
        things.sort(key=lambda thing: thing.pair not in HELD_OUT_PAIRS)
        for thing in things[:_BOXES_PER_SCENE]:
            normal = normalise_box(thing.box, scene.width, scene.height)
            square = expand_to_square(normal, scene.width, scene.height)
            rows.append(
                {
                    "question_id": len(rows) + 1,
                    "image": scene.image_file,
                    "text": f"Where is the {thing.name}? "
                    "Provide the bounding boxes of the mentioned objects.",
                    "boxes": [list(square)],
                    "kind": "referring",
                    "novel_combination": thing.pair in HELD_OUT_PAIRS,
                }
            )
    write_compact_json(folder / "questions.json", rows)
    return len(rows)
