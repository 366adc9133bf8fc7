"""The selection beside all items and beside a random choice of the same number of each kind."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from data_pipeline.generation.kinds import KINDS
from data_pipeline.recipe.concepts import ConceptSet
from data_pipeline.recipe.select_pool import Pool

LENGTH_STEP, LONGEST = 10, 300


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a set of items is like.

    `covered` is the share of items that hold a keyword of each concept; `keyword_counts` the items
    with each keyword, those of most items first; `worth` is F of the first cap. `lengths` gives the
    share of items with that many words, in steps of LENGTH_STEP, longer ones in the last;
    `openings` the share of questions that begin so.
    """

    items: int
    kinds: dict[str, int]
    questions: int
    yes: int
    no: int
    mean_words: float
    mean_keywords: float
    covered: dict[str, float]
    keyword_counts: list[int]
    worth: int
    lengths: list[tuple[int, float]]
    openings: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    all: Summary
    random: Summary
    selected: Summary


def compare(
    pool: Pool,
    chosen: Int[np.ndarray, "S"],
    concepts: ConceptSet,
    kept: Bool[np.ndarray, "W"],
    cap: int,
    seed: int,
) -> Comparison:
    """The three summaries; only keywords that are `kept` count."""
    sets = (pool, pool.take(_random_choice(pool, chosen, seed)), pool.take(chosen))
    return Comparison(*(_summary(items, concepts, kept, cap) for items in sets))


def _random_choice(pool: Pool, chosen: Int[np.ndarray, "S"], seed: int) -> Int[np.ndarray, "S"]:
    rng = np.random.default_rng([seed, len(pool)])
    # From an order that does not depend on the input's, so that neither does the choice.
    order = np.argsort(pool.tie)
    parts = []
    for kind, number in enumerate(np.bincount(pool.kind[chosen], minlength=len(KINDS))):
        parts.append(rng.choice(order[pool.kind[order] == kind], number, replace=False))
    return np.concatenate(parts)


def _summary(pool: Pool, concepts: ConceptSet, kept: Bool[np.ndarray, "W"], cap: int) -> Summary:
    counts = pool.frequency(len(concepts.keywords))
    openings = np.bincount(pool.opening, minlength=len(pool.openings)) / max(1, len(pool.opening))
    bins = np.minimum(pool.words, LONGEST) // LENGTH_STEP
    lengths = np.bincount(bins, minlength=LONGEST // LENGTH_STEP + 1) / len(pool)
    kinds = np.bincount(pool.kind, minlength=len(KINDS)).tolist()
    return Summary(
        items=len(pool),
        kinds=dict(zip(KINDS, kinds, strict=True)),
        questions=len(pool.opening),
        yes=int(pool.yes.sum()),
        no=int(pool.no.sum()),
        mean_words=float(pool.words.mean()),
        mean_keywords=float(pool.overlap.mean()),
        covered=_covered(pool, concepts),
        keyword_counts=np.sort(counts[kept])[::-1].tolist(),
        worth=int(np.minimum(counts, cap).sum()),
        lengths=[(LENGTH_STEP * place, share) for place, share in enumerate(lengths.tolist())],
        openings=dict(zip(pool.openings, openings.tolist(), strict=True)),
    )


def _covered(pool: Pool, concepts: ConceptSet) -> dict[str, float]:
    number_of = {keyword: number for number, keyword in enumerate(concepts.keywords)}
    covered = {}
    for concept in concepts.concepts:
        belongs = np.zeros(len(number_of), bool)
        belongs[[number_of[keyword] for keyword in concept.keywords]] = True
        before = np.concatenate(([0], np.cumsum(belongs[pool.keywords], dtype=np.int32)))
        covered[concept.name] = float((np.diff(before[pool.starts]) > 0).mean())
    return covered
