"""What the loader asks of a dataset; `data_pipeline.records` opens one that answers."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from data_pipeline.common.dialogue import Dialogue


@runtime_checkable
class Entry(Protocol):
    """One picture with all its dialogues; `image_id` is "" for a record of text alone."""

    @property
    def image_id(self) -> str: ...

    @property
    def dialogues(self) -> tuple[Dialogue, ...]: ...


@runtime_checkable
class PictureRecord(Entry, Protocol):
    """An entry with its picture file's bytes, None for text alone."""

    @property
    def image(self) -> bytes | None: ...


@runtime_checkable
class DialogueSource(Protocol):
    """Records by index; a damaged one raises BadRecordError. Picklable, for worker processes.

    entries: all records in order, without touching pictures; may be read anew on every pass, so
      that they never stand in memory together.
    fingerprint: equal fingerprints mean equal records in equal order.
    """

    @property
    def entries(self) -> Iterable[Entry]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PictureRecord: ...
