"""Long JSON files, entry by entry: no file is ever held in memory as a whole."""

import contextlib
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import ijson
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file


def stream_list(path: PathLike, what: str) -> Iterator[Any]:
    """Yields the entries of a file that is one JSON list, plain or in a zip archive.

    `what` names the file in errors. Raises UserError where the file is missing or malformed.
    """
    yield from _stream(path, what, "item", b"[", "a JSON list")


def stream_under(path: PathLike, what: str, key: str) -> Iterator[Any]:
    """Yields the entries of the list under `key` of a file that is one JSON object."""
    yield from _stream(path, what, f"{key}.item", b"{", "a JSON object")


def _stream(path: PathLike, what: str, prefix: str, opening: bytes, form: str) -> Iterator[Any]:
    with _open(require_file(path, what), what) as file:
        try:
            if file.read(64).lstrip()[:1] != opening:
                raise UserError(f"{what} {path} is not {form}; give the official file.")
            file.seek(0)
            yield from ijson.items(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            problem = str(error).strip().split("\n")[0]
            raise UserError(
                f"{what} {path} is not valid JSON ({problem}); "
                "it may be cut off: unzip or fetch the official file again."
            ) from None
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(
                f"{what} {path} cannot be read ({error}); it may be damaged: fetch it again."
            ) from None


@contextlib.contextmanager
def _open(path: epath.Path, what: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix != ".zip":
            yield file
            return
        try:
            archive = zipfile.ZipFile(file)
            members = [name for name in archive.namelist() if _is_content(name)]
            if len(members) != 1:
                raise UserError(
                    f"{what} {path} holds {len(members)} JSON files, not one; unzip it by hand and "
                    "give the file."
                )
            member = archive.open(members[0])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise UserError(
                f"{what} {path} is not a zip archive that can be read ({error}); fetch it again."
            ) from None
        with archive, member:
            yield member


def _is_content(name: str) -> bool:
    # macOS adds a shadow "__MACOSX/._objects.json" to the archives it writes.
    return name.endswith(".json") and not name.startswith("__MACOSX/")
