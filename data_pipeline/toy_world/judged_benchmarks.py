"""MM-Vet and LLaVA-Bench about the held-out toy scenes, with what their judges are told."""

from collections.abc import Mapping, Sequence

from etils import epath

from data_pipeline.common.files import write_jsonl, write_text
from data_pipeline.toy_world.descriptions import captions_of
from data_pipeline.toy_world.questions import Balance, Kind
from data_pipeline.toy_world.world import ToyScene
from data_pipeline.toy_world.write import Row, write_compact_json

_CAPABILITIES: Mapping[Kind, list[str]] = {
    "color": ["rec"],
    "count": ["rec", "math"],
    "position": ["rec", "spat"],
}
_CATEGORIES = ("conv", "detail", "complex")
_EVALUATOR = '''"""A toy stand-in of the official evaluator: the judge's prompt alone."""

prompt = """Give a correctness score from 0.0 to 1.0 for the prediction.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
How many are there? | 2 | Three. | 0.0
"""
'''
_RULE = (
    "Rate both assistants' answers from 1 to 10. Write the two numbers, separated by a space, on "
    "the first line."
)


def write_judged_benchmarks(
    folder: epath.Path, scenes: Sequence[ToyScene], seed: int
) -> dict[str, int]:
    """Writes mmvet/ and llava_bench/, a question a scene; returns how many each holds."""
    return {
        "mmvet": _write_mmvet(folder / "mmvet", scenes, seed),
        "llava_bench": _write_llava_bench(folder / "llava_bench", scenes, seed),
    }


def _write_mmvet(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    balance = Balance(f"{seed}/mmvet")
    rows: Row = {}
    for number, scene in enumerate(scenes):
        question = balance.choose(scene, dict.fromkeys(_CAPABILITIES, 1.0), 1)[0]
        rows[f"v1_{number}"] = {
            "imagename": scene.image_file,
            "question": question.text,
            "answer": question.answer,
            "imagesource": "toy world",
            "capability": _CAPABILITIES[question.kind],
        }
    write_compact_json(folder / "mm-vet.json", rows)
    write_text(folder / "mm-vet_evaluator.py", _EVALUATOR)
    return len(rows)


def _write_llava_bench(folder: epath.Path, scenes: Sequence[ToyScene], seed: int) -> int:
    numbered = list(enumerate(scenes))
    captions = [captions_of(scene, seed) for scene in scenes]
    write_jsonl(
        folder / "questions.jsonl",
        (
            {
                "question_id": number,
                "image": scene.image_file,
                "text": "What is in the picture?",
                "category": _CATEGORIES[number % len(_CATEGORIES)],
            }
            for number, scene in numbered
        ),
    )
    write_jsonl(
        folder / "context.jsonl",
        ({"id": n, "image": s.image_file, "caption": list(captions[n])} for n, s in numbered),
    )
    write_jsonl(
        folder / "answers_gpt4.jsonl",
        ({"question_id": n, "text": captions[n][0], "answer_id": f"toy{n}"} for n, _ in numbered),
    )
    rules = {f"llava_bench_{each}": {"role": "Assistant", "prompt": _RULE} for each in _CATEGORIES}
    write_compact_json(folder / "rule.json", rules)
    return len(numbered)
