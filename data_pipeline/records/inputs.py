"""What a dataset is made from: LLaVA-format rows grouped by picture, and a hash that names it."""

import array
import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
from etils import epath
from jaxtyping import Int64

from data_pipeline.common.dialogue import Dialogue, Turn, picture_names
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, file_sha256
from data_pipeline.common.progress import progress, progress_bar
from data_pipeline.records.llava_rows import LlavaRow, RejectedRow, read_llava_rows

_LOOKING_AHEAD = 32
"""Pictures that are looked for at once: a bucket answers late, and many together."""

_BATCH = 1 << 12

PictureSizes = tuple[int | None, ...]
"""The bytes of each picture of a group; None where there is no such file."""


@dataclasses.dataclass(frozen=True)
class Sourced:
    """A dialogue and the name of the file that it came from."""

    dialogue: Dialogue
    file: str


@dataclasses.dataclass(frozen=True)
class Group:
    """What becomes one record: the dialogues about a picture (or the same pictures, in the same
    order, whose paths stand in `image` one a line), or one dialogue without."""

    image: str | None
    members: tuple[Sourced, ...]

    def reject(self, reason: str) -> list[RejectedRow]:
        return [RejectedRow(m.dialogue.id, reason, m.file, self.image) for m in self.members]

    def reject_missing(self, sizes: PictureSizes) -> list[RejectedRow]:
        """`sizes` are of its pictures, the first None of which is named."""
        missing = picture_names(self.image)[sizes.index(None)]
        return self.reject(f"missing picture: there is no file {missing}.")


@dataclasses.dataclass(frozen=True)
class Found:
    """What the inputs hold: groups whose pictures are there, the pictures' bytes, rows that are
    rejected already; `hash` of the files' content and of the pictures' names and sizes."""

    groups: int
    picture_bytes: int
    rejected: list[RejectedRow]
    dropped_openings: int
    hash: str


class _Spool:
    """Checked rows on disk, by number: all of a large dataset's text stands in no memory.

    Safe in threads once all rows are added.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._ends = array.array("q", [0])

    def add(self, row: Sourced) -> None:
        turns = [(turn.role, turn.text) for turn in row.dialogue.turns]
        line = json.dumps([row.file, row.dialogue.id, turns]).encode()
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def flush(self) -> None:
        self._file.flush()

    def __getitem__(self, number: int) -> Sourced:
        start, end = self._ends[number : number + 2]
        file, row_id, turns = json.loads(os.pread(self._file.fileno(), end - start, start))
        return Sourced(Dialogue(row_id, tuple(Turn(role, text) for role, text in turns)), file)


@dataclasses.dataclass(frozen=True, eq=False)
class _Grouped:
    """Rows by picture: group g is rows `order[starts[g] : starts[g + 1]]` of picture g.

    Memory holds the names of the pictures and two numbers for each row.
    """

    rows: _Spool
    images: list[str | None]
    order: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "G_1"]

    def __getitem__(self, number: int) -> Group:
        rows = self.order[self.starts[number] : self.starts[number + 1]]
        return Group(self.images[number], tuple(self.rows[row] for row in rows.tolist()))


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What the inputs hold, and the groups in the order in which they were first seen."""

    found: Found
    _grouped: _Grouped
    _kept: Int64[np.ndarray, "K"]

    def groups(self, start: int, stop: int) -> Iterator[Group]:
        """Yields groups `start` to `stop` - 1, read from disk as they are asked for."""
        for number in self._kept[start:stop].tolist():
            yield self._grouped[number]


@contextlib.contextmanager
def open_inputs(llava_paths: Sequence[PathLike], images_folder: PathLike) -> Iterator[Inputs]:
    """Reads and groups the rows, and looks (without opening) at each picture.

    Until the block ends the rows lie in a temporary file (in TMPDIR), which has no name and so
    vanishes with the process, however that ends. A picture that changes and keeps its size keeps
    the hash: opening all of them would make a second run as slow as the first.

    Raises UserError where a file is not LLaVA's format or no row at all is usable.
    """
    with tempfile.TemporaryFile() as file:
        yield _read(_Spool(file), llava_paths, images_folder)


def _read(rows: _Spool, llava_paths: Sequence[PathLike], images_folder: PathLike) -> Inputs:
    numbers: dict[str, int] = {}
    images: list[str | None] = []
    group_of_row = array.array("q")
    rejected: list[RejectedRow] = []
    dropped_openings = 0
    for path in llava_paths:
        file_name = epath.Path(path).name
        for row in progress(read_llava_rows(path), f"reading {file_name}", unit="row"):
            if not isinstance(row, LlavaRow):
                rejected.append(row)
                continue
            dropped_openings += row.dropped_opening
            number = len(images)
            if row.image is not None:
                number = numbers.setdefault(row.image, number)
            if number == len(images):
                images.append(row.image)
            group_of_row.append(number)
            rows.add(Sourced(row.dialogue, file_name))
    rows.flush()
    group = np.array(group_of_row, np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(images)))])
    grouped = _Grouped(rows, images, np.argsort(group, kind="stable"), starts)

    sizes = find_sizes(images, images_folder)
    check_pictures(images, sizes, llava_paths, images_folder, rejected)
    missing = np.array([None in each for each in sizes])
    for number in np.flatnonzero(missing).tolist():
        rejected += grouped[number].reject_missing(sizes[number])
    kept = np.flatnonzero(~missing)
    found = Found(
        groups=len(kept),
        picture_bytes=total_bytes(sizes),
        rejected=rejected,
        dropped_openings=dropped_openings,
        hash=inputs_hash(
            [(epath.Path(path).name, file_sha256(path)) for path in llava_paths],
            zip(images, sizes, strict=True),
        ),
    )
    return Inputs(found, grouped, kept)


def check_pictures(
    images: Sequence[str | None],
    sizes: Sequence[PictureSizes],
    llava_paths: Sequence[PathLike],
    images_folder: PathLike,
    rejected: Sequence[RejectedRow],
) -> None:
    """Raises UserError where no row is usable, or none of the pictures is there."""
    if not images:
        first = f"; the first one: {rejected[0].reason}" if rejected else ""
        raise UserError(
            f"{', '.join(str(path) for path in llava_paths)}: none of the {len(rejected)} rows is "
            f"usable{first}"
        )
    named = dict.fromkeys(name for image in images for name in picture_names(image))
    if named and all(size is None for each in sizes for size in each):
        raise UserError(
            f"images folder {images_folder} holds none of the {len(named)} pictures; the first is "
            f"{next(iter(named))!r}: give the folder that such paths start from."
        )


def total_bytes(sizes: Iterable[PictureSizes]) -> int:
    """The bytes of all groups' pictures that are there."""
    return sum(size for each in sizes for size in each if size is not None)


def inputs_hash(
    files: Iterable[tuple[str, str]], pictures: Iterable[tuple[str | None, PictureSizes]]
) -> str:
    """Names the inputs: of (name, sha256) of the files in order, of (paths, bytes) of pictures."""
    digest = hashlib.sha256()
    for name, sha256 in files:
        digest.update(f"{name}:{sha256}\n".encode())
    for image, sizes in pictures:
        for name, size in zip(picture_names(image), sizes, strict=True):
            digest.update(f"{name}:{size}\n".encode())
    return digest.hexdigest()


def find_sizes(images: Sequence[str | None], folder: PathLike) -> list[PictureSizes]:
    """The sizes of the pictures that each of `images` names; each file is looked for once."""
    root = epath.Path(folder)
    names = list(dict.fromkeys(name for image in images for name in picture_names(image)))
    size_of: dict[str, int | None] = {}
    with (
        progress_bar(len(names), "looking for pictures", "picture") as bar,
        ThreadPoolExecutor(_LOOKING_AHEAD) as pool,
    ):
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            sizes = pool.map(lambda name: file_size(root / name), batch)
            size_of.update(zip(batch, sizes, strict=True))
            bar.update(len(batch))
    return [tuple(size_of[name] for name in picture_names(image)) for image in images]


def file_size(path: epath.Path) -> int | None:
    """The size in bytes, None where there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return None if stat.is_directory else stat.length
