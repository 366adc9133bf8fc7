"""The plan: what makes each row and in which order rows come, decided once, before training.

It is an array of rows and a permutation computed index by index, so a training step's number alone
says what its batch holds.
"""

import array
import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath
from grain.experimental import index_shuffle
from jaxtyping import Int32

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import (
    PathLike,
    content_hash,
    in_bucket,
    open_atomic,
    read_json,
    write_json,
)
from data_pipeline.common.progress import note, progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.packing import Sizes, make_packed_plan, make_padded_plan
from data_pipeline.loading.source import DialogueSource
from data_pipeline.text.encode import Measured, measure_dialogue
from data_pipeline.text.oddities import ODDITIES, find_oddities
from data_pipeline.text.templates import Template
from data_pipeline.text.tokenizer import Tokenizer

PlanKind = Literal["packed", "padded"]

RECORD, DIALOGUE, TOKENS, PICTURES = range(4)
"""Columns of a plan's rows."""

_FORMAT = 2
_META_FILE = "plan.json"

_COUNTED = {
    **ODDITIES,
    "truncated": "cut off at the row's length",
    "nothing_to_learn": "without a token to learn from",
}
_LEFT_OUT = Measured(0, 0, 0)


@functools.lru_cache(maxsize=16)
def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def permuted_row(index: int, rows: int, seed: int, block_rows: int = 1) -> int:
    """The row that global row `index` is: row index % rows of epoch index // rows, permuted.

    An epoch's order is a permutation of its blocks of `block_rows` rows, which stay whole; rows
    that fill no block come last. The cipher behind it is Grain's own shuffle: no array of the
    order ever exists.
    """
    epoch, place = divmod(index, rows)
    block, offset = divmod(place, block_rows)
    blocks = rows // block_rows
    if block >= blocks:
        return place
    shuffled = index_shuffle(
        index=block, max_index=blocks - 1, seed=_epoch_seed(seed, epoch), rounds=4
    )
    return shuffled * block_rows + offset


@dataclasses.dataclass(frozen=True)
class PlanInputs:
    """All that decides a plan.

    dataset, tokenizer, template: fingerprints.
    patches: P, tokens a picture. row_length: T, tokens a row. pictures_per_row: M, slots a row.
    seed: of packing and of every epoch's order.
    kind: "packed" fills rows to T; "padded" puts one dialogue in a row.
    block_rows: rows that stay together in every epoch's order.
    """

    dataset: str
    tokenizer: str
    template: str
    patches: int
    row_length: int
    pictures_per_row: int
    seed: int
    kind: PlanKind = "packed"
    block_rows: int = 1

    def __post_init__(self) -> None:
        least = {"patches": 1, "row_length": 2, "pictures_per_row": 0, "seed": 0, "block_rows": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise UserError(
                    f"the plan's {name} is {getattr(self, name)}; it must be at least {minimum}."
                )

    @property
    def identity(self) -> str:
        """Equal identities mean equal rows in equal order: a checkpoint keeps this."""
        return content_hash({"format": _FORMAT, **dataclasses.asdict(self)})


@dataclasses.dataclass(frozen=True)
class PlanStatistics:
    """fill: share of token places used. picture_occupancy: share of picture slots used, 0 without
    slots. counts: dialogues by oddity, "truncated" and "nothing_to_learn" among them."""

    rows: int
    dialogues: int
    fill: float
    picture_occupancy: float
    dialogues_per_row: float
    counts: Mapping[str, int]

    def __str__(self) -> str:
        """All of it in one line, oddities that are absent left out."""
        odd = [f"{n} {_COUNTED[name]}" for name, n in self.counts.items() if n]
        return "; ".join(
            [
                f"{self.dialogues} dialogues in {self.rows} rows",
                f"{self.fill:.1%} of token places and {self.picture_occupancy:.1%} of picture "
                "slots used",
                *odd,
            ]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """R rows of up to S dialogues: (record, dialogue, tokens, pictures), padded with -1.

    `counts` says how many dialogues have each oddity (docs/model_inputs.md lists them), are cut
    off or have nothing to learn. `path` is the file that `rows` is memory-mapped from: such a plan
    travels to worker processes as its path alone.
    """

    inputs: PlanInputs
    rows: Int32[np.ndarray, "R S 4"]
    counts: Mapping[str, int]
    path: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Int32[np.ndarray, "n 4"]:
        """What global row `index` = 0, 1, ... holds; epochs follow one another without end."""
        place = permuted_row(index, len(self), self.inputs.seed, self.inputs.block_rows)
        row = np.asarray(self.rows[place])
        return row[row[:, RECORD] >= 0]

    def statistics(self) -> PlanStatistics:
        used = self.rows[..., RECORD] >= 0
        slots = len(self) * self.inputs.pictures_per_row
        pictures = int(self.rows[..., PICTURES].sum(where=used, dtype=np.int64))
        tokens = int(self.rows[..., TOKENS].sum(where=used, dtype=np.int64))
        return PlanStatistics(
            rows=len(self),
            dialogues=int(used.sum()),
            fill=tokens / (len(self) * self.inputs.row_length),
            picture_occupancy=pictures / slots if slots else 0.0,
            dialogues_per_row=int(used.sum()) / len(self),
            counts=self.counts,
        )

    def save(self, folder: PathLike) -> "Plan":
        """Writes the plan to a folder and returns it as it lies there, memory-mapped.

        The rows' file is named after the plan's identity and plan.json, written last, commits it.
        """
        root = epath.Path(folder)
        with open_atomic(root / f"rows-{self.inputs.identity}.npy", "wb") as file:
            np.save(file, self.rows)
        meta = {"inputs": dataclasses.asdict(self.inputs), "counts": dict(self.counts)}
        write_json(root / _META_FILE, {"identity": self.inputs.identity, **meta})
        return Plan.load(folder, self.inputs)

    @classmethod
    def load(cls, folder: PathLike, inputs: PlanInputs | None = None) -> "Plan":
        """The plan that `save` wrote. Raises UserError where it is absent or damaged, or, with
        `inputs`, was made of others; the error says which."""
        path = epath.Path(folder) / _META_FILE
        meta = read_json(path, "plan")
        try:
            found = PlanInputs(**meta["inputs"])
            counts = {name: int(meta["counts"][name]) for name in _COUNTED}
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
        return cls(found, _map_rows(rows_path), counts, rows_path)

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
    block_rows: int = 1,
) -> PlanInputs:
    """The inputs of a plan, cheap: what `Plan.load` compares a kept plan with."""
    return PlanInputs(
        source.fingerprint,
        tokenizer.fingerprint,
        template.fingerprint,
        patches,
        row_length,
        pictures_per_row,
        seed,
        kind,
        block_rows,
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
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
    dialogues, tokens, pictures = (array.array("i") for _ in range(3))
    for entry in progress(source.entries, "measuring dialogues", len(source), "record"):
        has_picture = bool(entry.image_id)
        dialogues.append(len(entry.dialogues))
        for dialogue in entry.dialogues:
            size = _LEFT_OUT
            try:
                size = measure_dialogue(
                    dialogue.turns, template, tokenizer, inputs.patches, has_picture
                )
            except BadRecordError as error:
                if quarantine is None:
                    raise BadRecordError(f"dialogue {dialogue.id}: {error}") from None
                quarantine.add(dialogue.id, str(error))
            else:
                counts.update(find_oddities(dialogue.turns, template, has_picture))
                counts["truncated"] += size.tokens > inputs.row_length
                counts["nothing_to_learn"] += size.first_target >= min(
                    size.tokens, inputs.row_length
                )
            tokens.append(size.tokens)
            pictures.append(size.pictures)
    make = make_packed_plan if inputs.kind == "packed" else make_padded_plan
    sizes = Sizes(*(np.array(numbers, np.int32) for numbers in (dialogues, tokens, pictures)))
    rows = make(sizes, inputs.row_length, inputs.pictures_per_row, inputs.seed)
    plan = Plan(inputs, rows, dict(counts))
    left_out = f"; {len(quarantine)} left out ({quarantine.path})" if quarantine else ""
    note(f"plan: {plan.statistics()}{left_out}")
    return plan


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
