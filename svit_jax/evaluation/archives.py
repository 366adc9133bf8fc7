"""Official files as downloaded: pictures read inside their zip, question files unpacked once."""

import fnmatch
import functools
import pathlib
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import open_atomic

_MACOS = "__MACOSX"
"""Where a Mac puts a second, hidden file for each file of an archive."""


@dataclass(frozen=True)
class ZippedPicture:
    """A picture inside an archive, read when it is wanted."""

    archive: pathlib.Path
    member: str

    def read_bytes(self) -> bytes:
        try:
            return _opened(self.archive).read(self.member)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"picture {self.member} in {self.archive} cannot be read ({error}); "
                "fetch the archive again."
            ) from None

    def __str__(self) -> str:
        return f"{self.archive}/{self.member}"


Picture = pathlib.Path | ZippedPicture


def readable(picture: Picture) -> pathlib.Path | bytes:
    """What a reader of pictures takes: a path, or the bytes of one in an archive."""
    return picture.read_bytes() if isinstance(picture, ZippedPicture) else picture


def archives_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The zip files of a folder, or the one that is given in the place of a folder."""
    if folder.suffix == ".zip" and folder.is_file():
        return [folder]
    return sorted(folder.glob("*.zip"))


def find_zipped(folder: pathlib.Path, name: str) -> ZippedPicture | None:
    """The member of that name, with or without the folder that the archive wraps it in."""
    for archive in archives_in(folder):
        member = _members(archive).get(name)
        if member is not None:
            return ZippedPicture(archive, member)
    return None


def unpack_matching(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """Files of the folder that match, and those in its archives, unpacked beside them once."""
    for archive in archives_in(folder):
        for member in dict.fromkeys(_members(archive).values()):
            name = pathlib.PurePosixPath(member).name
            target = archive.parent / name
            if fnmatch.fnmatch(name, pattern) and not target.exists():
                with _opened(archive).open(member) as source, open_atomic(target, "wb") as file:
                    while chunk := source.read(1 << 20):
                        file.write(chunk)
    root = folder.parent if folder.suffix == ".zip" else folder
    return sorted(root.glob(pattern))


def folder_in_zip(archive: pathlib.Path, names: Collection[str]) -> zipfile.Path | None:
    """The outermost folder of the archive that holds folders of such names."""
    found = [
        path.parts[: path.parts.index(part)]
        for path in map(pathlib.PurePosixPath, _opened(archive).namelist())
        for part in path.parts[:-1]
        if part in names and path.parts[0] != _MACOS
    ]
    if not found:
        return None
    return zipfile.Path(_opened(archive)).joinpath(*min(found, key=len))


@functools.lru_cache(maxsize=16)
def _opened(archive: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"archive {archive} cannot be read ({error}); fetch it again, it may be cut off."
        ) from None


@functools.lru_cache(maxsize=16)
def _members(archive: pathlib.Path) -> Mapping[str, str]:
    """Member by its path, and by its path below the archive's own folder."""
    names = [name for name in _opened(archive).namelist() if not name.endswith("/")]
    below = {name.split("/", 1)[1]: name for name in names if "/" in name}
    return {**below, **{name: name for name in names}}
