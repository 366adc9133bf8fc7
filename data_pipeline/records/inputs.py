"""What a dataset is made from: LLaVA-format rows grouped by picture, and a hash that names it."""

import dataclasses
import hashlib
from collections.abc import Sequence

from etils import epath

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, file_sha256
from data_pipeline.common.progress import progress
from data_pipeline.records.llava_rows import LlavaRow, RejectedRow, read_llava_rows


@dataclasses.dataclass(frozen=True)
class Sourced:
    """A dialogue and the name of the file that it came from."""

    dialogue: Dialogue
    file: str


@dataclasses.dataclass(frozen=True)
class Group:
    """What becomes one record: a picture with all its dialogues, or one dialogue without."""

    image: str | None
    members: tuple[Sourced, ...]

    def reject(self, reason: str) -> list[RejectedRow]:
        return [RejectedRow(m.dialogue.id, reason, m.file, self.image) for m in self.members]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Groups whose pictures are there, in the order in which they were first seen; rows that are
    rejected already; `hash` of the files' content and of the pictures' names and sizes."""

    groups: list[Group]
    rejected: list[RejectedRow]
    dropped_openings: int
    picture_bytes: int
    hash: str


def read_inputs(llava_paths: Sequence[PathLike], images_folder: PathLike) -> Inputs:
    """Reads and groups the rows, and looks (without opening) at each picture.

    A picture that changes and keeps its size keeps the hash: opening all of them would make a
    second run as slow as the first.

    Raises UserError where a file is not LLaVA's format or no row at all is usable.
    """
    digest = hashlib.sha256()
    pictured: dict[str, list[Sourced]] = {}
    order: list[str | Sourced] = []
    rejected: list[RejectedRow] = []
    dropped_openings = 0
    for path in llava_paths:
        file_name = epath.Path(path).name
        for row in progress(read_llava_rows(path), f"reading {file_name}", unit="row"):
            if not isinstance(row, LlavaRow):
                rejected.append(row)
                continue
            dropped_openings += row.dropped_opening
            member = Sourced(row.dialogue, file_name)
            if row.image is None:
                order.append(member)
            elif row.image in pictured:
                pictured[row.image].append(member)
            else:
                pictured[row.image] = [member]
                order.append(row.image)
        digest.update(f"{file_name}:{file_sha256(path)}\n".encode())
    if not order:
        first = f"; the first one: {rejected[0].reason}" if rejected else ""
        raise UserError(
            f"{', '.join(str(path) for path in llava_paths)}: none of the {len(rejected)} rows is "
            f"usable{first}"
        )

    groups: list[Group] = []
    picture_bytes = 0
    missing = 0
    root = epath.Path(images_folder)
    for entry in progress(order, "looking for pictures", unit="picture"):
        if isinstance(entry, Sourced):
            groups.append(Group(None, (entry,)))
            continue
        group = Group(entry, tuple(pictured[entry]))
        size = _file_size(root / entry)
        digest.update(f"{entry}:{size}\n".encode())
        if size is None:
            missing += 1
            rejected += group.reject(f"missing picture: there is no file {entry}.")
        else:
            groups.append(group)
            picture_bytes += size
    if pictured and missing == len(pictured):
        raise UserError(
            f"images folder {images_folder} holds none of the {missing} pictures; the first is "
            f"{next(iter(pictured))!r}: give the folder that such paths start from."
        )
    return Inputs(groups, rejected, dropped_openings, picture_bytes, digest.hexdigest())


def _file_size(path: epath.Path) -> int | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return None if stat.is_directory else stat.length
