"""Published results of SVIT-v1.5 and of LLaVA-1.5, on which it builds, with their sources."""

from collections.abc import Mapping
from dataclasses import dataclass

PLACES: Mapping[str, tuple[str, str] | None] = {
    "VQAv2": None,
    "VQAv2-val": ("vqav2", "accuracy"),
    "GQA": ("gqa", "accuracy"),
    "VizWiz": None,
    "VizWiz-val": ("vizwiz", "accuracy"),
    "SQA-I": ("scienceqa", "image_accuracy"),
    "TextVQA": ("textvqa", "accuracy"),
    "POPE": ("pope", "f1"),
    "MME-P": ("mme", "perception"),
    "MME-C": ("mme", "cognition"),
    "MMB": ("mmbench", "accuracy"),
    "MMB-CN": ("mmbench_cn", "accuracy"),
    "SEED": ("seedbench", "accuracy"),
    "SEED-image": ("seedbench", "image"),
    "MMMU-test": None,
    "MMMU-val": ("mmmu", "accuracy"),
    "LLaVA-W": None,
    "LLaVA-W, own judge": ("llava_bench", "all"),
    "MM-Vet": None,
    "MM-Vet, own judge": ("mmvet", "total"),
}
"""Column of the table -> the benchmark and figure here. Published are VQAv2's test-dev, GQA's
testdev-balanced, VizWiz's test, ScienceQA's test questions with a picture, TextVQA's val, POPE's
mean F1, MMBench's and MMBench-CN's dev, all of SEED-Bench-1, MMMU's test.

None: the answers are not public, and only the server can say; what is scored here is the val split,
which is another figure with a column of its own, as SEED's pictures are. So with LLaVA-W
(LLaVA-Bench in the wild) and MM-Vet: they were graded by GPT-4 as it was then, and another judge
gives other figures."""

COLUMNS = tuple(PLACES)

_VILA2 = "MMMU-val, and LLaVA's MMMU-test: VILA\u00b2, table 6"
_SVIT = f"BAAI-DCAI/Visual-Instruction-Tuning, README (arXiv 2307.04087); {_VILA2}"
_LLAVA = f"haotian-liu/LLaVA, docs/MODEL_ZOO.md; {_VILA2}"


@dataclass(frozen=True)
class PublishedRow:
    """One model's figures by column; a column that its source doesn't give is absent."""

    model: str
    figures: Mapping[str, float]
    source: str


PUBLISHED = (
    PublishedRow(
        "SVIT-v1.5-13B LoRA",
        {
            "VQAv2": 80.1,
            "GQA": 63.4,
            "VizWiz": 56.7,
            "SQA-I": 69.9,
            "TextVQA": 61.1,
            "MME-P": 1560.3,
            "MME-C": 364.3,
            "MMB": 68.3,
            "MMB-CN": 63.2,
            "SEED": 61.8,
            "MMMU-test": 34.1,
            "MMMU-val": 38.0,
        },
        _SVIT,
    ),
    PublishedRow(
        "SVIT-v1.5-13B Full",
        {
            "VQAv2": 80.3,
            "GQA": 64.1,
            "VizWiz": 56.4,
            "SQA-I": 70.0,
            "TextVQA": 60.8,
            "MME-P": 1565.8,
            "MME-C": 323.2,
            "MMB": 69.1,
            "MMB-CN": 63.1,
            "SEED": 61.9,
            "MMMU-test": 33.3,
        },
        _SVIT,
    ),
    PublishedRow(
        "LLaVA-v1.5-13B LoRA",
        {
            "VQAv2": 80.0,
            "GQA": 63.3,
            "VizWiz": 58.9,
            "SQA-I": 71.2,
            "TextVQA": 60.2,
            "POPE": 86.7,
            "MME-P": 1541.7,
            "MMB": 68.5,
            "MMB-CN": 61.5,
            "SEED": 61.3,
            "LLaVA-W": 69.5,
            "MM-Vet": 38.3,
        },
        _LLAVA,
    ),
    PublishedRow(
        "LLaVA-v1.5-13B Full",
        {
            "VQAv2": 80.0,
            "GQA": 63.3,
            "VizWiz": 53.6,
            "SQA-I": 71.6,
            "TextVQA": 61.3,
            "POPE": 85.9,
            "MME-P": 1531.3,
            "MMB": 67.7,
            "MMB-CN": 63.6,
            "SEED": 61.6,
            "MMMU-test": 33.6,
            "MMMU-val": 36.4,
            "LLaVA-W": 72.5,
            "MM-Vet": 36.1,
        },
        _LLAVA,
    ),
)


def official_figures(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Our scores (benchmark name -> what `Benchmark.score` gave) under the published columns."""
    places = {column: place for column, place in PLACES.items() if place is not None}
    return {
        column: scores[benchmark][figure]
        for column, (benchmark, figure) in places.items()
        if figure in scores.get(benchmark, {})
    }
