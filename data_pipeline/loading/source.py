"""What the loader asks of a dataset; `data_pipeline.records` opens one that answers."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.common.files import content_hash


@runtime_checkable
class Entry(Protocol):
    """A picture, or several shown together, with all dialogues; `image_id` names them one a line
    and is "" for a record of text alone."""

    @property
    def image_id(self) -> str: ...

    @property
    def dialogues(self) -> tuple[Dialogue, ...]: ...


@runtime_checkable
class PictureRecord(Entry, Protocol):
    """An entry with the bytes of its pictures' files, in the order in which it names them."""

    @property
    def images(self) -> tuple[bytes, ...]: ...


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


@dataclasses.dataclass(frozen=True)
class JoinedSource:
    """The records of several sources, one after another."""

    sources: tuple[DialogueSource, ...]

    @property
    def entries(self) -> Iterable[Entry]:
        return itertools.chain.from_iterable(source.entries for source in self.sources)

    @property
    def fingerprint(self) -> str:
        return content_hash([source.fingerprint for source in self.sources])

    @functools.cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(map(len, self.sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> PictureRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        return self.sources[part][index - (self._ends[part - 1] if part else 0)]
