"""Long JSON files, read and written entry by entry: memory does not grow with the file."""

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import ijson
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic, require_file


def stream_list(path: PathLike, what: str, form: str = "the official file") -> Iterator[Any]:
    """Yields the entries of a file that is one JSON list, plain or in a zip archive.

    `what` names the file in errors ("instructions file") and `form` what it should be. Raises
    UserError where the file is missing or malformed.
    """
    yield from _stream(path, what, "item", b"[", "list", form)


def stream_under(
    path: PathLike, what: str, key: str, form: str = "the official file"
) -> Iterator[Any]:
    """Yields the entries of the list under `key` of a file that is one JSON object."""
    yield from _stream(path, what, f"{key}.item", b"{", "object", form)


@contextlib.contextmanager
def json_list_writer(
    path: PathLike, key: str | None = None, head: Mapping[str, Any] | None = None
) -> Iterator[Callable[[Any], None]]:
    """A function that appends an entry to the JSON list `path`, which appears when the block ends.

    With `key` the file is an object, `head`, and the list stands in it under `key`.
    """
    with open_atomic(path) as file:
        if key is not None:
            start = json.dumps(dict(head or {}), ensure_ascii=False)[:-1]
            file.write(f"{start}{', ' if head else ''}{json.dumps(key)}: ")
        before = "[\n"

        def write(entry: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(entry, ensure_ascii=False))
            before = ",\n"

        yield write
        file.write("[]" if before == "[\n" else "\n]")
        file.write("\n" if key is None else "}\n")


def _stream(
    path: PathLike, what: str, prefix: str, opening: bytes, kind: str, form: str
) -> Iterator[Any]:
    with _open(require_file(path, what), what) as file:
        try:
            if file.read(64).lstrip()[:1] != opening:
                raise UserError(f"{what} {path} does not hold a JSON {kind}; expected {form}.")
            file.seek(0)
            yield from ijson.items(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            problem = " ".join(str(error).split())[:120]
            raise UserError(
                f"{what} {path} is not valid JSON ({problem}); it may be cut off: "
                "fetch, unzip or make it again."
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
