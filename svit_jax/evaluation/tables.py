"""Tables of texts: TSV, and xlsx where the package openpyxl is installed."""

import csv
import importlib.util
import io
import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence

from data_pipeline.common.errors import UserError


def has_xlsx() -> bool:
    """Whether xlsx can be read and written here."""
    return importlib.util.find_spec("openpyxl") is not None


def read_table(path: pathlib.Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """The columns' names and the rows of a TSV or of an xlsx file's first sheet, as texts."""
    if path.suffix == ".tsv":
        table = csv.DictReader(io.StringIO(path.read_text("utf-8")), dialect="excel-tab")
        return list(table.fieldnames or ()), table
    if not has_xlsx():
        raise UserError(
            f"predictions {path}: xlsx needs the package openpyxl; install it with: "
            "pip install 'svit-jax[evaluation]', or save the table as .tsv."
        )
    import openpyxl

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


def to_tsv(rows: Iterable[Sequence[str]]) -> str:
    """The table as tab-separated text; cells with breaks or quotes are quoted."""
    text = io.StringIO()
    csv.writer(text, dialect="excel-tab", lineterminator="\n").writerows(rows)
    return text.getvalue()


def to_xlsx(rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> bytes:
    """A workbook of one sheet; the columns `numbers` hold whole numbers below the header.

    A text stays a text even where it begins as a formula does; characters that xlsx has no place
    for go.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    for line, row in enumerate(rows):
        cells = []
        for column, text in enumerate(row):
            if line and column in numbers:
                cells.append(WriteOnlyCell(sheet, int(text)))
                continue
            cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", text) or None)
            cell.data_type = "s" if text else "n"
            cells.append(cell)
        sheet.append(cells)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()
