"""One shard: written aside, then renamed, then committed by a small file that says what is in it.

Shards are independent of each other, so threads, or the workers of a cluster, write them in any
order; what was committed before a run was killed is kept by the next.
"""

import contextlib
import dataclasses
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator

from array_record.python import array_record_module
from etils import epath

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import file_sha256, open_atomic, read_json, write_json
from data_pipeline.records.example import Record, encode_record
from data_pipeline.records.inputs import Group, file_size
from data_pipeline.records.llava_rows import RejectedRow
from data_pipeline.records.manifest import ManifestEntry, Shard, entry_line
from data_pipeline.records.pictures import Resize, stored_picture
from data_pipeline.records.tfds_metadata import shard_names


@dataclasses.dataclass(frozen=True)
class Part:
    """A committed shard, and what the manifest and the quarantine are to say of it.

    `entries_sha256` is of the manifest's rows, which lie beside it until the dataset is finished.
    """

    identity: str
    shard: Shard
    dialogues: int
    entries_sha256: str
    rejected: tuple[RejectedRow, ...]


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """All that decides the shards of a split but for their groups. Picklable.

    identity: names the inputs and the settings; parts of another one are never kept.
    """

    folder: str
    name: str
    split: str
    count: int
    images: str
    resize: Resize | None
    identity: str

    @property
    def unfinished(self) -> epath.Path:
        """The folder of parts: it is there until the dataset is finished."""
        return epath.Path(self.folder) / f".{self.name}-{self.split}.unfinished"

    @property
    def shard_names(self) -> list[str]:
        return shard_names(self.name, self.split, self.count)

    def slice_of(self, number: int, groups: int) -> tuple[int, int]:
        """Which of all groups shard `number` holds: start and stop."""
        return groups * number // self.count, groups * (number + 1) // self.count

    def entries_path(self, number: int) -> epath.Path:
        """Where the shard's rows of the manifest wait."""
        return self.unfinished / f"part-{number:05d}.jsonl"

    def shard_of(self, group: int, groups: int) -> int:
        """The number of the shard whose slice holds a group."""
        return ((group + 1) * self.count - 1) // groups

    def part(self, number: int) -> Part:
        """What was committed of a shard. Raises UserError where that can't be read."""
        path = self._part_path(number)
        row = read_json(path, "part of an unfinished dataset")
        try:
            shard = Shard(**row.pop("shard"))
            rejected = tuple(RejectedRow(**rejected) for rejected in row.pop("rejected"))
            return Part(**row, shard=shard, rejected=rejected)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not the note of a shard ({error!r}); remove the folder {path.parent} "
                "and write the dataset again."
            ) from None

    def finished(self, number: int) -> Part | None:
        """The part that a run before committed, if the shard and its rows are whole; else None."""
        path, entries = self._shard_path(number), self.entries_path(number)
        try:
            part = self.part(number)
        except UserError:
            return None
        whole = (
            part.identity == self.identity
            and file_size(path) == part.shard.bytes
            and file_sha256(path) == part.shard.sha256
            and entries.exists()
            and file_sha256(entries) == part.entries_sha256
        )
        return part if whole else None

    def write(
        self, number: int, groups: Iterable[Group], each: Callable[[], None] = lambda: None
    ) -> Part:
        """Writes shard `number` and commits it; `each` is called before every group.

        Raises UserError where the shard can't be written.
        """
        path, entries_path = self._shard_path(number), self.entries_path(number)
        rejected: list[RejectedRow] = []
        records = dialogues = 0
        with _open_shard(path) as shard, open_atomic(entries_path) as entries:
            for group in groups:
                each()
                try:
                    entry, data = self._load(group)
                except BadRecordError as error:
                    rejected += group.reject(str(error))
                    continue
                shard.write(data)
                entries.write(entry_line(entry, data))
                records += 1
                dialogues += len(entry.dialogues)
        part = Part(
            self.identity,
            Shard(path.name, records, path.stat().length, file_sha256(path)),
            dialogues,
            file_sha256(entries_path),
            tuple(rejected),
        )
        write_json(self._part_path(number), dataclasses.asdict(part))
        return part

    def _load(self, group: Group) -> tuple[ManifestEntry, bytes]:
        """The group as a record, its pictures decoded once to know that they can be."""
        dialogues = tuple(member.dialogue for member in group.members)
        stored = [self._load_picture(name) for name in picture_names(group.image)]
        image_id = group.image or ""
        entry = ManifestEntry(image_id, tuple(size for _, size in stored), dialogues)
        record = Record(image_id, tuple(picture for picture, _ in stored), dialogues)
        return entry, encode_record(record)

    def _load_picture(self, name: str) -> tuple[bytes, tuple[int, int]]:
        try:
            data = (epath.Path(self.images) / name).read_bytes()
            picture, width, height = stored_picture(data, name, self.resize)
        except BadRecordError as error:
            raise BadRecordError(f"broken picture: {error}") from None
        except OSError as error:
            raise BadRecordError(
                f"unreadable picture: {name} ({error.strerror or error})."
            ) from None
        return picture, (width, height)

    def _shard_path(self, number: int) -> epath.Path:
        return epath.Path(self.folder) / self.shard_names[number]

    def _part_path(self, number: int) -> epath.Path:
        return self.unfinished / f"part-{number:05d}.json"


@contextlib.contextmanager
def _open_shard(target: epath.Path) -> Iterator[array_record_module.ArrayRecordWriter]:
    """A writer whose file appears under `target` when the block ends without an error.

    The writer knows local paths only, so a shard for a bucket is made in a scratch folder first.
    """
    in_bucket = "://" in os.fspath(target)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory()) if in_bucket else target.parent
        aside = epath.Path(place) / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            # Group size 1: a record is read without its neighbours, as Grain and TFDS expect.
            writer = array_record_module.ArrayRecordWriter(os.fspath(aside), "group_size:1")
            try:
                yield writer
            finally:
                writer.close()
            if in_bucket:
                aside.copy(target, overwrite=True)
            else:
                aside.replace(target)
        except RuntimeError as error:
            raise UserError(
                f"shard {target} can't be written ({error}); check the folder and the free space."
            ) from None
        finally:
            aside.unlink(missing_ok=True)
