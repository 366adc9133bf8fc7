"""The Grain pipeline: from a plan and a step's number to that step's batch.

Every stage maps one index to one value, so the step is the whole data cursor: a loader that starts
at step s gives the very batches that one from step 0 gives there, on any number of hosts.
"""

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Int32

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.images.transforms import AspectMode, prepare
from data_pipeline.loading.batch import Batch
from data_pipeline.loading.plan import Plan, check_inputs
from data_pipeline.loading.source import DialogueSource, PictureRecord
from data_pipeline.text.encode import Encoded, encode_dialogue
from data_pipeline.text.templates import Template
from data_pipeline.text.tokenizer import Tokenizer

KEPT_BYTES = 256 << 20
"""How much of a dataset each process that makes batches keeps in memory, decoded."""

_TURN_BYTES = 300  # about what the objects of a turn take beside its text

_BATCH_FIELDS = tuple(field.name for field in dataclasses.fields(Batch))


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Pictures of `size` x `size` pixels; `mode` is "pad" (to a square) or "crop"."""

    size: int
    mode: AspectMode = "pad"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A step's batch, and the records in it that failed at load, with a reason for each."""

    step: int
    batch: Batch
    bad: tuple[str, ...]
    reasons: tuple[str, ...]


class _Memory:
    """The first records that were read, with their pictures made ready, as many as there is room
    for: a small dataset is decoded once and not once an epoch. In shuffled rows the last ones would
    be of no more use."""

    def __init__(self, room: int):
        self._room, self._used = room, 0
        self._kept: dict[int, tuple[PictureRecord, list[np.ndarray]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A worker process has a memory of its own.
        return {"_room": self._room, "_used": 0, "_kept": {}}

    def find(self, index: int) -> tuple[PictureRecord, list[np.ndarray]] | None:
        return self._kept.get(index)

    def keep(self, index: int, record: PictureRecord, pictures: list[np.ndarray]) -> None:
        texts = [turn.text for dialogue in record.dialogues for turn in dialogue.turns]
        size = sum(map(len, record.images)) + sum(picture.nbytes for picture in pictures)
        size += sum(len(text) + _TURN_BYTES for text in texts)
        if index not in self._kept and self._used + size <= self._room:
            self._used += size
            self._kept[index] = record, pictures


@dataclasses.dataclass(frozen=True)
class _RowMaker:
    """Global row index -> the row's arrays."""

    plan: Plan
    source: DialogueSource
    tokenizer: Tokenizer
    template: Template
    images: ImageSpec
    memory: _Memory

    def __call__(self, index: int) -> dict[str, Any]:
        inputs = self.plan.inputs
        T, M, P = self.plan.length(index), inputs.pictures_per_row, inputs.patches
        Y = self.images.size
        row: dict[str, Any] = {
            "tokens": np.full(T, self.tokenizer.pad_id, np.int32),
            "loss_weights": np.zeros(T, np.float32),
            "segment_ids": np.zeros(T, np.int32),
            "positions": np.zeros(T, np.int32),
            "images": np.zeros((M, Y, Y, 3), np.uint8),
            "vision_index": np.full(T, -1, np.int32),
            "bad": [],
        }
        start = slot = 0
        for segment, planned in enumerate(self.plan.row(index), start=1):
            record, _, length, pictures = planned.tolist()
            here = slice(start, start + length)
            row["segment_ids"][here] = segment
            row["positions"][here] = np.arange(length)
            name = f"record {record}"
            try:
                loaded, prepared = self.memory.find(record) or (self.source[record], None)
                name = ", ".join(picture_names(loaded.image_id)) or name
                encoded, shown = self._segment(loaded, prepared, planned)
            except BadRecordError as error:
                row["bad"].append((name, str(error)))
            else:
                row["tokens"][here] = encoded.tokens
                row["loss_weights"][here] = encoded.loss_weights
                index_here = encoded.vision_index
                row["vision_index"][here] = np.where(index_here < 0, -1, index_here + slot * P)
                for place, picture in enumerate(shown, slot):
                    row["images"][place] = picture
            start += length
            slot += pictures
        return row

    def _segment(
        self,
        record: PictureRecord,
        prepared: list[np.ndarray] | None,
        planned: Int32[np.ndarray, "4"],
    ) -> tuple[Encoded, list[np.ndarray]]:
        index, place, length, pictures = planned.tolist()
        dialogue = record.dialogues[place]
        encoded = encode_dialogue(
            dialogue.turns,
            self.template,
            self.tokenizer,
            self.plan.inputs.patches,
            max_length=self.plan.inputs.cut,
            has_picture=bool(record.images),
        )
        if (len(encoded.tokens), encoded.pictures) != (length, pictures):
            raise UserError(
                f"dialogue {dialogue.id} has {len(encoded.tokens)} tokens and {encoded.pictures} "
                f"pictures, but the plan says {length} and {pictures}; the dataset was changed "
                "under its old fingerprint: write it and make the plan again."
            )
        if pictures and pictures != len(record.images):
            raise BadRecordError(
                f"dialogue {dialogue.id} shows {pictures} pictures, but its record holds "
                f"{len(record.images)}; correct its <image> markers."
            )
        if prepared is None:
            named = zip(record.images, picture_names(record.image_id), strict=True)
            spec = self.images
            prepared = [prepare(data, spec.size, spec.mode, name) for data, name in named]
            self.memory.keep(index, record, prepared)
        return encoded, prepared[:pictures]


@dataclasses.dataclass(frozen=True)
class _GlobalRow:
    """Index among this host's rows -> index among all rows of all steps."""

    start_step: int
    batch_size: int
    local_rows: tuple[int, ...]

    def __call__(self, index: int) -> int:
        step, place = divmod(index, len(self.local_rows))
        return (self.start_step + step) * self.batch_size + self.local_rows[place]


def _stack(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # Plain arrays and not a Batch: these are what Grain moves through shared memory.
    batch = {name: np.stack([row[name] for row in rows]) for name in _BATCH_FIELDS}
    return {**batch, "bad": [bad for row in rows for bad in row["bad"]]}


def _checked_rows(batch_size: int, local_rows: Sequence[int] | None) -> tuple[int, ...]:
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1.")
    rows = tuple(range(batch_size)) if local_rows is None else tuple(local_rows)
    if not rows or not all(0 <= row < batch_size for row in rows):
        raise UserError(
            f"local_rows is {list(rows)}; it must hold at least one row, each within "
            f"0..{batch_size - 1}, the rows of the global batch."
        )
    return rows


def make_loader(
    plan: Plan,
    source: DialogueSource,
    tokenizer: Tokenizer,
    template: Template,
    images: ImageSpec,
    batch_size: int,
    start_step: int,
    steps: int,
    local_rows: Sequence[int] | None = None,
    workers: int = 0,
    threads: int = 1,
    buffered: int = 2,
    max_bad: int = 0,
) -> Generator[Loaded, None, None]:
    """Yields the batches of steps start_step .. start_step + steps - 1, in order.

    A record that fails at load leaves a segment of weight 0 and of its planned length, and its
    picture slots black; its id is in `Loaded.bad`.

    Args:
      plan: what the rows hold; it must belong to `source`, `tokenizer` and `template`.
      images: what the pictures become.
      batch_size: B, rows of the global batch.
      local_rows: which of the B rows to make, in this order; None makes all of them.
      workers: processes that make batches; 0 makes them in threads of this process. They are
        spawned: a script that asks for them needs an `if __name__ == "__main__"` guard.
      threads: threads in each process; each works on a batch of its own.
      buffered: batches kept ready in each process.
      max_bad: how many distinct records may fail before the run stops.

    Raises UserError at once where arguments don't fit, and while iterating where more than
    `max_bad` records failed or the dataset is not what the plan was made for.
    """
    check_inputs(plan.inputs, source, tokenizer, template)
    rows = _checked_rows(batch_size, local_rows)
    if plan.inputs.kind == "padded" and batch_size != plan.inputs.block_rows:
        raise UserError(
            f"the batch size is {batch_size}, but the padded plan is of batches of "
            f"{plan.inputs.block_rows}; give that size, or make a new plan."
        )
    if start_step < 0 or steps < 0:
        raise UserError(f"steps {start_step}..{start_step + steps} must not be negative.")
    dataset = (
        grain.MapDataset.range(steps * len(rows))
        .map(_GlobalRow(start_step, batch_size, rows))
        .map(_RowMaker(plan, source, tokenizer, template, images, _Memory(KEPT_BYTES)))
        .batch(len(rows), batch_fn=_stack)
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, buffered))
        )
    )
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain reads absl flags when it starts workers, and not every caller is an absl app.
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffered)
        )
    return _loaded(dataset, start_step, max_bad)


def _loaded(
    dataset: grain.IterDataset[dict[str, Any]], start_step: int, max_bad: int
) -> Generator[Loaded, None, None]:
    failed: set[str] = set()
    iterator = iter(dataset)
    try:
        for step, made in enumerate(iterator, start=start_step):
            ids, reasons = zip(*made.pop("bad"), strict=True) if made["bad"] else ((), ())
            failed.update(ids)
            if len(failed) > max_bad:
                raise UserError(
                    f"step {step}: {len(failed)} bad records, more than the {max_bad} allowed; "
                    f"the last is {ids[-1]}: {reasons[-1]} Mend them or raise max_bad."
                )
            batch = Batch(**{name: made[name] for name in _BATCH_FIELDS})
            yield Loaded(step, batch, ids, reasons)
    finally:
        iterator.close()
