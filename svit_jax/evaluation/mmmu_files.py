"""MMMU's rows and pictures, from the release's parquet files or from a JSON export."""

import ast
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic, read_json
from svit_jax.evaluation.benchmark import find_file, require_fields

_FIELDS = ["id", "question", "options", "answer", "question_type"]
_PICTURE = "image_1"
_ROWS_AT_ONCE = 32


def read_rows(folder: PathLike, images: PathLike | None) -> list[dict[str, Any]]:
    """The rows, subject by subject in the official (alphabetical) order.

    Parquet files are searched in the folder and in its folders, the validation split before the
    test split. With `images`, their first pictures are unpacked to `images/<id>.png`, once.
    """
    root = pathlib.Path(folder)
    for split in ("validation", "test"):
        paths = sorted(root.glob(f"**/{split}-*.parquet"))
        if paths:
            rows = [row for path in paths for row in _parquet_rows(path, images)]
            break
    else:
        path = find_file(root, "validation.json", "*.json", "MMMU parquet files or JSON export")
        rows = _json_rows(path)
    return sorted(rows, key=lambda row: subject_of(row["id"]))


def subject_of(question_id: str) -> str:
    """The subject in an id: `validation_Art_Theory_7` -> `Art_Theory`."""
    return "_".join(question_id.split("_")[1:-1])


def literal_list(value: Any, where: str) -> list[str]:
    """The list that a field holds, or that its text writes out as Python does."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list):
        raise UserError(f"{where}: expected a list, found {value!r}; is this the official file?")
    return [str(entry) for entry in found]


def _json_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    rows = read_json(path, "MMMU questions")
    if not isinstance(rows, list):
        raise UserError(f"MMMU questions {path}: expected a list, found {type(rows).__name__}.")
    for number, row in enumerate(rows):
        require_fields(row, _FIELDS, f"MMMU questions {path}, row {number}")
    return rows


def _parquet_rows(path: pathlib.Path, images: PathLike | None) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(
            f"MMMU questions {path}: parquet needs the package pyarrow; install it with: "
            "pip install 'svit-jax[evaluation]', or give a JSON export (docs/evaluation.md)."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow.names)
            columns = _FIELDS if images is None else [*_FIELDS, _PICTURE]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    if images is not None:
                        _unpack(row.pop(_PICTURE), pathlib.Path(images) / f"{row['id']}.png")
                    yield row
    except ArrowInvalid as error:
        raise UserError(
            f"MMMU questions {path} is no parquet file ({error}); fetch it again."
        ) from None


def _require_columns(path: pathlib.Path, names: Sequence[str]) -> None:
    missing = [name for name in (*_FIELDS, _PICTURE) if name not in names]
    if missing:
        raise UserError(
            f"MMMU questions {path}: there is no column {missing[0]!r}; is this the official file?"
        )


def _unpack(picture: dict[str, Any] | None, path: pathlib.Path) -> None:
    """Writes the picture's bytes, whatever their format: readers look at the bytes, not the name.
    A row without a picture leaves none, which the lookup of pictures reports."""
    if picture is None or not picture["bytes"] or path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path, "wb") as file:
        file.write(picture["bytes"])
