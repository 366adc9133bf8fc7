"""Published results of SVIT-v1.5 and of LLaVA-1.5, on which it builds, with their sources."""

from collections.abc import Mapping
from dataclasses import dataclass

COLUMNS = ("VQAv2", "GQA", "POPE", "MME-P", "MME-C")
"""VQA accuracy on test-dev, accuracy on testdev-balanced, mean F1, MME perception, cognition."""

_SVIT = "BAAI-DCAI/Visual-Instruction-Tuning, README (arXiv 2307.04087)"
_LLAVA = "haotian-liu/LLaVA, docs/MODEL_ZOO.md"


@dataclass(frozen=True)
class PublishedRow:
    """One model's figures by column; a column that its source doesn't give is absent."""

    model: str
    figures: Mapping[str, float]
    source: str


PUBLISHED = (
    PublishedRow(
        "SVIT-v1.5-13B LoRA", {"VQAv2": 80.1, "GQA": 63.4, "MME-P": 1560.3, "MME-C": 364.3}, _SVIT
    ),
    PublishedRow(
        "SVIT-v1.5-13B Full", {"VQAv2": 80.3, "GQA": 64.1, "MME-P": 1565.8, "MME-C": 323.2}, _SVIT
    ),
    PublishedRow(
        "LLaVA-v1.5-13B LoRA", {"VQAv2": 80.0, "GQA": 63.3, "POPE": 86.7, "MME-P": 1541.7}, _LLAVA
    ),
    PublishedRow(
        "LLaVA-v1.5-13B Full", {"VQAv2": 80.0, "GQA": 63.3, "POPE": 85.9, "MME-P": 1531.3}, _LLAVA
    ),
)


def official_figures(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Our scores (benchmark name -> what `Benchmark.score` gave) under the published columns."""
    places = {
        "VQAv2": ("vqav2", "accuracy"),
        "GQA": ("gqa", "accuracy"),
        "POPE": ("pope", "f1"),
        "MME-P": ("mme", "perception"),
        "MME-C": ("mme", "cognition"),
    }
    return {
        column: scores[benchmark][figure]
        for column, (benchmark, figure) in places.items()
        if figure in scores.get(benchmark, {})
    }
