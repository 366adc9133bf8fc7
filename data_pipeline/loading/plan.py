"""The plan: what makes each row and in which order rows come, decided once, before training.

It is an array of rows and a permutation computed index by index, so a training step's number alone
says what its batch holds.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath
from jaxtyping import Int32, Int64

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import (
    PathLike,
    content_hash,
    in_bucket,
    open_atomic,
    read_json,
    write_json,
)
from data_pipeline.common.progress import note
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.grouping import bucket_lengths, make_padded_plan
from data_pipeline.loading.measure import COUNTED, measure_dialogues
from data_pipeline.loading.order import mixed, permuted
from data_pipeline.loading.packing import Sizes, make_packed_plan
from data_pipeline.loading.source import DialogueSource
from data_pipeline.text.templates import Template
from data_pipeline.text.tokenizer import Tokenizer

PlanKind = Literal["packed", "padded"]

RECORD, DIALOGUE, TOKENS, PICTURES = range(4)
"""Columns of a plan's rows."""

_FORMAT = 3
_META_FILE = "plan.json"


@dataclasses.dataclass(frozen=True)
class PlanInputs:
    """All that decides a plan.

    dataset, tokenizer, template: fingerprints.
    patches: P, tokens a picture. row_length: T, tokens a row. pictures_per_row: M, slots a row.
    seed: of packing and of every epoch's order.
    kind: "packed" fills rows to T; "padded" puts one dialogue in a row, in whole batches, each
      padded to a length of its own.
    dialogue_length: a dialogue is cut off there; 0 cuts at T alone.
    block_rows: rows that stay together in every epoch's order: 1, or a padded plan's batch size.
    reference_devices: of a padded plan, for how many devices batches are grouped; 0: at random.
    parts: of a mixture, (records, share of the rows) of each dataset in it; empty without one.
    """

    dataset: str
    tokenizer: str
    template: str
    patches: int
    row_length: int
    pictures_per_row: int
    seed: int
    kind: PlanKind = "packed"
    dialogue_length: int = 0
    block_rows: int = 1
    reference_devices: int = 0
    parts: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        least = {
            "patches": 1,
            "row_length": 2,
            "pictures_per_row": 0,
            "seed": 0,
            "dialogue_length": 0,
            "block_rows": 1,
            "reference_devices": 0,
        }
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise UserError(
                    f"the plan's {name} is {getattr(self, name)}; it must be at least {minimum}."
                )

    @property
    def cut(self) -> int:
        """The most tokens of a dialogue."""
        return min(self.row_length, self.dialogue_length or self.row_length)

    @property
    def shares(self) -> tuple[int, ...]:
        return tuple(share for _, share in self.parts) or (1,)

    @property
    def identity(self) -> str:
        """Equal identities mean equal rows in equal order: a checkpoint keeps this."""
        return content_hash({"format": _FORMAT, **dataclasses.asdict(self)})


@dataclasses.dataclass(frozen=True)
class PlanStatistics:
    """rows: those that hold a dialogue. fill: share of token places used; a padded batch has as
    many as its own length gives. picture_occupancy: share of picture slots used, 0 without slots.
    counts: dialogues by oddity, "truncated" and "nothing_to_learn" among them."""

    rows: int
    dialogues: int
    fill: float
    picture_occupancy: float
    dialogues_per_row: float
    counts: Mapping[str, int]

    def __str__(self) -> str:
        """All of it in one line, oddities that are absent left out."""
        odd = [f"{n} {COUNTED[name]}" for name, n in self.counts.items() if n]
        return "; ".join(
            [
                f"{self.dialogues} dialogues in {self.rows} rows "
                f"({self.dialogues_per_row:.1f} a row)",
                f"{self.fill:.1%} of token places and {self.picture_occupancy:.1%} of picture "
                "slots used",
                *odd,
            ]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """R rows of up to S dialogues: (record, dialogue, tokens, pictures), padded with -1.

    `part_rows` says how many rows each part of a mixture has; they lie one after another.
    `counts` says how many dialogues have each oddity (docs/model_inputs.md lists them), are cut
    off or have nothing to learn. `path` is the file that `rows` is memory-mapped from: such a plan
    travels to worker processes as its path alone.
    """

    inputs: PlanInputs
    rows: Int32[np.ndarray, "R S 4"]
    counts: Mapping[str, int]
    part_rows: tuple[int, ...]
    path: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def _place(self, index: int) -> int:
        """Where in `rows` global row `index` stands."""
        inputs = self.inputs
        block, offset = divmod(index, inputs.block_rows)
        part, number = mixed(block, inputs.shares, inputs.seed) if inputs.parts else (0, block)
        blocks = self.part_rows[part] // inputs.block_rows
        # The reference's order is the padded rows' own; it is kept for as long as it lasts.
        if inputs.kind == "packed" or number >= blocks:
            number = permuted(number, blocks, inputs.seed, part + 1 if inputs.parts else 0)
        return sum(self.part_rows[:part]) + number * inputs.block_rows + offset

    def row(self, index: int) -> Int32[np.ndarray, "n 4"]:
        """What global row `index` = 0, 1, ... holds; epochs follow one another without end."""
        row = np.asarray(self.rows[self._place(index)])
        return row[row[:, RECORD] >= 0]

    def length(self, index: int) -> int:
        """How many token places global row `index` has: as many as all rows of its batch."""
        if self.inputs.kind == "packed":
            return self.inputs.row_length
        first = self._place(index - index % self.inputs.block_rows)
        return int(self._padded_lengths(self.rows[first : first + self.inputs.block_rows])[0])

    def _padded_lengths(self, rows: Int32[np.ndarray, "n 1 4"]) -> Int64[np.ndarray, "b"]:
        longest = rows[:, 0, TOKENS].reshape(-1, self.inputs.block_rows).max(1)
        buckets = np.array(bucket_lengths(self.inputs.row_length))
        return buckets[np.searchsorted(buckets, longest)]

    @functools.cached_property
    def lengths(self) -> Mapping[int, int]:
        """How many rows have each length: one length in a packed plan, few in a padded one."""
        if self.inputs.kind == "packed":
            return {self.inputs.row_length: len(self)}
        batches = Counter(self._padded_lengths(self.rows).tolist())
        return {length: n * self.inputs.block_rows for length, n in sorted(batches.items())}

    def statistics(self) -> PlanStatistics:
        used = self.rows[..., RECORD] >= 0
        rows = int(used.any(1).sum())
        slots = rows * self.inputs.pictures_per_row
        places = sum(length * n for length, n in self.lengths.items())
        pictures = int(self.rows[..., PICTURES].sum(where=used, dtype=np.int64))
        tokens = int(self.rows[..., TOKENS].sum(where=used, dtype=np.int64))
        return PlanStatistics(
            rows=rows,
            dialogues=int(used.sum()),
            fill=tokens / places,
            picture_occupancy=pictures / slots if slots else 0.0,
            dialogues_per_row=int(used.sum()) / rows,
            counts=self.counts,
        )

    def save(self, folder: PathLike) -> "Plan":
        """Writes the plan to a folder and returns it as it lies there, memory-mapped.

        The rows' file is named after the plan's identity and plan.json, written last, commits it.
        """
        root = epath.Path(folder)
        with open_atomic(root / f"rows-{self.inputs.identity}.npy", "wb") as file:
            np.save(file, self.rows)
        meta = {
            "inputs": dataclasses.asdict(self.inputs),
            "counts": dict(self.counts),
            "part_rows": self.part_rows,
        }
        write_json(root / _META_FILE, {"identity": self.inputs.identity, **meta})
        return Plan.load(folder, self.inputs)

    @classmethod
    def load(cls, folder: PathLike, inputs: PlanInputs | None = None) -> "Plan":
        """The plan that `save` wrote. Raises UserError where it is absent or damaged, or, with
        `inputs`, was made of others; the error says which."""
        path = epath.Path(folder) / _META_FILE
        meta = read_json(path, "plan")
        try:
            parts = tuple((records, share) for records, share in meta["inputs"]["parts"])
            found = PlanInputs(**{**meta["inputs"], "parts": parts})
            counts = {name: int(meta["counts"][name]) for name in COUNTED}
            part_rows = tuple(map(int, meta["part_rows"]))
            if found.identity != meta["identity"]:
                raise ValueError("the identity belongs to other inputs or another version")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"plan {path} is damaged or of another version ({error}); delete the folder and "
                "make the plan again."
            ) from None
        if inputs is not None and found != inputs:
            here, there = dataclasses.asdict(inputs), dataclasses.asdict(found)
            changed = "; ".join(
                f"{key} {there[key]!r}, now {here[key]!r}"
                for key in here
                if here[key] != there[key]
            )
            raise UserError(
                f"plan {path} was made of other inputs ({changed}); restore them, or choose "
                "another folder and make a new plan, which is a new run."
            )
        rows_path = str(path.parent / f"rows-{found.identity}.npy")
        return cls(found, _map_rows(rows_path), counts, part_rows, rows_path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": None if self.path else self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path:
            self.__dict__["rows"] = _map_rows(self.path)


def _map_rows(path: str) -> Int32[np.ndarray, "R S 4"]:
    try:
        if in_bucket(path):
            with epath.Path(path).open("rb") as file:
                rows = np.load(file, allow_pickle=False)
        else:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if rows.ndim != 3 or rows.shape[2] != 4 or rows.dtype != np.int32 or not len(rows):
            raise ValueError(f"found {rows.dtype} {rows.shape}, expected int32 (R, S, 4)")
    except (OSError, ValueError) as error:
        raise UserError(
            f"the plan's rows {path} can't be read ({error}); delete the folder and make the plan "
            "again."
        ) from None
    return rows


def plan_inputs(
    source: DialogueSource,
    tokenizer: Tokenizer,
    template: Template,
    *,
    patches: int,
    row_length: int,
    pictures_per_row: int,
    seed: int,
    kind: PlanKind = "packed",
    dialogue_length: int = 0,
    batch_size: int = 1,
    reference_devices: int = 0,
    parts: tuple[tuple[int, int], ...] = (),
) -> PlanInputs:
    """The inputs of a plan, cheap: what `Plan.load` compares a kept plan with. A packed plan fits
    any `batch_size` and `reference_devices`."""
    return PlanInputs(
        source.fingerprint,
        tokenizer.fingerprint,
        template.fingerprint,
        patches,
        row_length,
        pictures_per_row,
        seed,
        kind,
        dialogue_length,
        *((batch_size, reference_devices) if kind == "padded" else (1, 0)),
        parts,
    )


def build_plan(
    source: DialogueSource,
    tokenizer: Tokenizer,
    template: Template,
    inputs: PlanInputs,
    quarantine: Quarantine | None = None,
) -> Plan:
    """Measures every dialogue, from the manifest alone, and decides the rows; says on standard
    error what they hold.

    A dialogue that the template can't write goes to `quarantine` with its reason and is left out;
    without one its BadRecordError is raised. Raises UserError where a dialogue shows more pictures
    than a row has slots.
    """
    check_inputs(inputs, source, tokenizer, template)
    sizes, counts = measure_dialogues(
        source, tokenizer, template, inputs.patches, inputs.cut, quarantine
    )
    records = [part_records for part_records, _ in inputs.parts] or [len(source)]
    starts = [0, *itertools.accumulate(records)]
    parts = [
        _part_rows(sizes.records(start, stop), start, inputs)
        for start, stop in itertools.pairwise(starts)
    ]
    most = max(part.shape[1] for part in parts)
    rows = np.concatenate(
        [np.pad(p, [(0, 0), (0, most - p.shape[1]), (0, 0)], constant_values=-1) for p in parts]
    )
    plan = Plan(inputs, rows, counts, tuple(map(len, parts)))
    left_out = f"; {len(quarantine)} left out ({quarantine.path})" if quarantine else ""
    note(f"plan: {plan.statistics()}{left_out}")
    return plan


def _part_rows(sizes: Sizes, first_record: int, inputs: PlanInputs) -> Int32[np.ndarray, "R S 4"]:
    limits = inputs.row_length, inputs.pictures_per_row, inputs.seed
    if inputs.kind == "packed":
        rows = make_packed_plan(sizes, *limits)
    else:
        rows = make_padded_plan(sizes, *limits, inputs.block_rows, inputs.reference_devices)
    rows[..., RECORD] += np.where(rows[..., RECORD] >= 0, first_record, 0).astype(np.int32)
    return rows


def check_inputs(
    inputs: PlanInputs, source: DialogueSource, tokenizer: Tokenizer, template: Template
) -> None:
    """Raises UserError where a plan belongs to another dataset, tokenizer or template."""
    for what, found in (
        ("dataset", source.fingerprint),
        ("tokenizer", tokenizer.fingerprint),
        ("template", template.fingerprint),
    ):
        expected = getattr(inputs, what)
        if found != expected:
            raise UserError(
                f"the plan was made for {what} {expected}, but the {what} given is {found}; give "
                "that one, or make a new plan."
            )
