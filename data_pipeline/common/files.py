"""Files that are whole or absent: written aside, then renamed; reading explains itself.

Paths may be local or in a bucket (`gs://...`): all go through `etils.epath`. A bucket knows no
renaming; there a file is written aside on the local disk and put as one object, which is whole.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, Any

from etils import epath

from data_pipeline.common.errors import UserError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def open_atomic(path: PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that appears under `path` only when the block ends without an error.

    The text is UTF-8. Missing parent folders are made.
    """
    target = epath.Path(path)
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as scratch:
            aside = epath.Path(scratch) / target.name
            with aside.open(mode) as file:
                yield file
            aside.copy(target, overwrite=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with aside.open(mode) as file:
            yield file
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def in_bucket(path: PathLike) -> bool:
    return "://" in os.fspath(path)


def move_folder(source: epath.Path, target: epath.Path) -> None:
    """Moves a folder, in the place of what stood there: at once on a disk, object by object in a
    bucket."""
    if target.exists():
        target.rmtree()
    if not in_bucket(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    _copy_objects(source, target)
    source.rmtree()


def _copy_objects(source: epath.Path, target: epath.Path) -> None:
    for path in source.iterdir():
        if path.is_dir():
            _copy_objects(path, target / path.name)
        else:
            path.copy(target / path.name)


def copy_folder(source: epath.Path, target: epath.Path) -> None:
    """Copies a folder of this machine in the place of what stood there; each file appears whole."""
    if target.exists():
        target.rmtree()
    for path in source.iterdir():
        if path.is_dir():
            copy_folder(path, target / path.name)
            continue
        with open_atomic(target / path.name, "wb") as file:
            file.write(path.read_bytes())


def write_text(path: PathLike, text: str) -> None:
    with open_atomic(path) as file:
        file.write(text)


def write_json(path: PathLike, value: Any, indent: int | None = 1) -> None:
    with open_atomic(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=indent)
        file.write("\n")


def write_jsonl(path: PathLike, rows: Iterable[Any]) -> int:
    """Writes one JSON value a line and returns how many."""
    count = 0
    with open_atomic(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def strict_json(value: Any) -> Any:
    """The value with every float that JSON has no number for as a string that `float` reads again:
    "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def require_file(path: PathLike, what: str) -> epath.Path:
    """The path, if a file stands there; `what` names it in the error ("the VQAv2 questions")."""
    found = epath.Path(path)
    if not found.exists():
        raise UserError(f"{what}: there is no file {found}; check the path.")
    return found


def read_json(path: PathLike, what: str = "JSON file") -> Any:
    """The parsed file. Raises UserError naming the file, line and column where it is malformed."""
    found = require_file(path, what)
    try:
        return json.loads(found.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{what} {found} is not valid JSON ({error}); it may be cut off: "
            "fetch or make it again."
        ) from None


def read_jsonl(path: PathLike, what: str = "JSONL file") -> Iterator[Any]:
    """Yields a value for each non-empty line. Raises UserError naming a malformed line."""
    found = require_file(path, what)
    with found.open("r") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{what} {found}, line {number}, is not valid JSON ({error.msg}); "
                    "the file may be cut off: make it again."
                ) from None


def content_hash(value: Any) -> str:
    """A short stable hash of a JSON-like value (what a cache key or an identity is made of)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: PathLike) -> str:
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
