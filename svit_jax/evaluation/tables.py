"""Tables of predictions: read from TSV and xlsx; written as xlsx for servers that want it."""

import csv
import datetime
import io
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

from data_pipeline.common.errors import UserError


def read_table(path: pathlib.Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """The columns' names and the rows of a TSV or of an xlsx file's first sheet, as texts."""
    if path.suffix == ".tsv":
        table = csv.DictReader(io.StringIO(path.read_text("utf-8")), dialect="excel-tab")
        return list(table.fieldnames or ()), table
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"predictions {path}: xlsx needs the package openpyxl; install it with: "
            "pip install 'svit-jax[evaluation]', or save the table as .tsv."
        ) from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True).worksheets[0]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"predictions {path} are no xlsx file ({error}); save it again.") from None
    lines = sheet.iter_rows(values_only=True)
    columns = ["" if name is None else str(name) for name in next(lines, ())]
    rows = (
        dict(zip(columns, ("" if cell is None else str(cell) for cell in line), strict=False))
        for line in lines
    )
    return columns, rows


def xlsx_table(rows: Sequence[Sequence[str]]) -> bytes | None:
    """An xlsx file of the rows, every cell as text; None where openpyxl is not installed.

    Characters that the format has no room for are left out.
    """
    try:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ImportError:
        return None
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for line, row in enumerate(rows, start=1):
        for column, text in enumerate(row, start=1):
            if text:
                cell = sheet.cell(line, column, ILLEGAL_CHARACTERS_RE.sub("", text))
                cell.data_type = "s"  # or "=..." would be a formula
    book.properties.created = book.properties.modified = datetime.datetime(2000, 1, 1)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()
