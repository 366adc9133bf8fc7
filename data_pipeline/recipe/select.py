"""The core subset: the items with most to teach about a concept set, balanced in yes and no.

Two passes over the input: the first measures every item, the second copies the selected ones.
docs/selection.md tells what of this is the paper's and what is ours.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import (
    PathLike,
    file_sha256,
    require_file,
    write_json,
    write_text,
)
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.generation.kinds import KINDS
from data_pipeline.instructions.rows import quarantine_beside
from data_pipeline.recipe.concepts import ConceptSet
from data_pipeline.recipe.select_balance import KEEP, Balance
from data_pipeline.recipe.select_compare import compare
from data_pipeline.recipe.select_greedy import choose
from data_pipeline.recipe.select_items import UNITS, Source, read_items
from data_pipeline.recipe.select_pool import measure_items
from data_pipeline.recipe.select_quotas import CORE_COUNT, Quota, settle_quotas
from data_pipeline.recipe.select_report import report_page

DEFAULT_MIN_FREQUENCY = 1e-4
CAP_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is selected: `count` items with `quotas` by kind (the rest divided as DEFAULT_SHARES).

    `yes_share` of the answers that start with yes or no shall be yes (None: as they fall). A
    keyword counts where at least the share `min_frequency` of all items hold it, and in at most
    `cap` items (None: CAP_SHARE of `count`). `unit` is "row" or "qa".
    """

    count: int = CORE_COUNT
    quotas: Mapping[str, Quota] = dataclasses.field(default_factory=dict)
    yes_share: Fraction | None = Fraction(1, 2)
    cap: int | None = None
    min_frequency: float = DEFAULT_MIN_FREQUENCY
    unit: str = "row"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"the unit {self.unit!r} is none of: {', '.join(UNITS)}.")
        if not 0 <= self.min_frequency <= 1:
            raise UserError(
                f"--min-frequency is {self.min_frequency}; expected a share of the items, 0 to 1."
            )
        if self.cap is not None and self.cap < 1:
            raise UserError(f"--cap is {self.cap}; expected 1 item a keyword or more.")

    @property
    def first_cap(self) -> int:
        return self.cap or math.ceil(CAP_SHARE * self.count)


@dataclasses.dataclass(frozen=True)
class SelectReport:
    """What was selected from what.

    `repeated` items stood in the input before, word for word, and were left out of `from_items`;
    `dropped_keywords` (with the number of items that hold them) were rarer than the threshold.
    """

    items: int
    kinds: dict[str, int]
    from_items: int
    repeated: int
    yes: int
    no: int
    keywords: int
    dropped_keywords: dict[str, int]
    rejections: dict[str, int]
    manifest: str
    report: str


def select(
    sources: Sequence[Source],
    out: PathLike,
    concepts: ConceptSet,
    choices: Choices,
    max_bad: int | None = None,
) -> SelectReport:
    """Writes the selected rows to `out` in the order of the input, a manifest and a report beside.

    The same items and choices give the same selection, in whatever order the items stand. Rows that
    cannot be used go to `<out's stem>.quarantine.jsonl`; past `max_bad` of them the run stops.
    Raises UserError where the choices cannot be met.
    """
    for source in sources:
        if require_file(source.path, "instructions file") == epath.Path(out):
            raise UserError(f"--out {out} is one of the inputs; choose another file.")
    quarantine = quarantine_beside(out, max_bad)
    items = read_items(sources, choices.unit, quarantine)
    pool = measure_items(progress(items, "measure", unit="item"), concepts.keywords, choices.seed)
    quarantine.save()
    places = pool.first_of_each()
    repeated = len(pool) - len(places)
    pool = pool.take(places) if repeated else pool
    available = {kind: int((pool.kind == KINDS.index(kind)).sum()) for kind in KINDS}
    quotas = settle_quotas(choices.count, choices.quotas, available)
    frequency = pool.frequency(len(concepts.keywords))
    kept = frequency >= max(1, choices.min_frequency * len(pool))
    pool = pool.keep_keywords(kept)
    balance = Balance.of_items(choices.yes_share, pool.yes, pool.no)
    chosen = choose(pool, quotas, balance, choices.first_cap)
    _copy(sources, choices.unit, places[chosen], out)

    comparison = compare(pool, chosen, concepts, kept, choices.first_cap, choices.seed)
    selected = comparison.selected
    stem, folder = epath.Path(out).stem, epath.Path(out).parent
    report = SelectReport(
        items=len(chosen),
        kinds=dict(selected.kinds),
        from_items=len(pool),
        repeated=repeated,
        yes=selected.yes,
        no=selected.no,
        keywords=int(kept.sum()),
        dropped_keywords={
            keyword: int(frequency[number])
            for number, keyword in enumerate(concepts.keywords)
            if not kept[number]
        },
        rejections=quarantine.counts(),
        manifest=str(folder / f"{stem}.manifest.json"),
        report=str(folder / f"{stem}.report.html"),
    )
    covered = {
        name: {key: round(one.covered[name], 6) for key, one in vars(comparison).items()}
        for name in selected.covered
    }
    manifest = _manifest(sources, out, concepts, choices, quotas, report)
    write_json(report.manifest, {**manifest, "covered": covered})
    write_text(report.report, report_page(comparison, report.dropped_keywords, choices.yes_share))
    return report


def _copy(sources: Sequence[Source], unit: str, chosen: np.ndarray, out: PathLike) -> None:
    wanted = iter([*np.sort(chosen).tolist(), -1])
    following = next(wanted)
    with json_list_writer(out) as write:
        for place, item in enumerate(progress(read_items(sources, unit), "copy", unit="item")):
            if place == following:
                write(item.value)
                following = next(wanted)


def _manifest(
    sources: Sequence[Source],
    out: PathLike,
    concepts: ConceptSet,
    choices: Choices,
    quotas: Mapping[str, int],
    report: SelectReport,
) -> dict[str, Any]:
    """All that is needed to make the same file again and to know it; names no folder."""
    share = choices.yes_share
    return {
        "output": {"file": os.path.basename(os.fspath(out)), "sha256": file_sha256(out)},
        "inputs": [
            {
                "file": os.path.basename(os.fspath(source.path)),
                "kind": source.kind,
                "sha256": file_sha256(source.path),
            }
            for source in sources
        ],
        "choices": {
            "seed": choices.seed,
            "count": choices.count,
            "unit": choices.unit,
            "quotas": dict(quotas),
            "yes_share": KEEP if share is None else str(share),
            "cap": choices.first_cap,
            "min_frequency": choices.min_frequency,
        },
        "concepts": {"hash": concepts.hash, "keywords": report.keywords},
        "counts": {
            "from_items": report.from_items,
            "repeated": report.repeated,
            "items": report.items,
            "kinds": report.kinds,
            "yes": report.yes,
            "no": report.no,
        },
        "dropped_keywords": report.dropped_keywords,
        "rejections": report.rejections,
    }
