"""Rows of long JSON lists with their places in the file, so that they can be read in any order."""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, NoReturn

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file

_CHUNK = 1 << 20
_LONGEST_ROW = 1 << 26
_SPACE = " \t\r\n"


class PlacedRow(NamedTuple):
    """A row and the bytes of the file that it is made from."""

    offset: int
    length: int
    value: Any


def placed_rows(path: PathLike) -> Iterator[PlacedRow]:
    """Yields the rows of a JSON list in order; memory does not grow with the file.

    Raises UserError where the file is absent, not UTF-8, no JSON list, malformed or cut off, or has
    a row of more than 64 MiB.
    """
    found = require_file(path, "instructions file")
    with found.open("rb") as file:
        window = _Window(file, str(found))
        if window.next_character() != "[":
            raise UserError(
                f"instructions file {found} does not hold a JSON list; expected LLaVA's format, "
                '[{"id": ..., "image": ..., "conversations": [...]}, ...].'
            )
        window.skip()
        separator = window.next_character()
        while separator != "]":
            yield window.row()
            separator = window.next_character()
            if separator not in (",", "]"):
                window.fail("expected a comma or the list's end")
            window.skip()
            if separator == "," and window.next_character() == "]":
                window.fail("a comma before the list's end")


def read_row(file: IO[bytes], offset: int, length: int) -> Any:
    """The row that lies there, of a file that `placed_rows` has gone through."""
    file.seek(offset)
    return json.loads(file.read(length))


class _Window:
    """A stretch of the file as text, and how many bytes lie before it."""

    def __init__(self, file: IO[bytes], name: str):
        self._file = file
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._offset = 0
        self._rows = 0

    def next_character(self) -> str:
        """The next character that is no space, not yet stepped over."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self.skip()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._extend():
                self.fail("the file ends before the list does")

    def skip(self) -> None:
        """Steps over a character of one byte."""
        self._at += 1
        self._offset += 1

    def row(self) -> PlacedRow:
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # A number that ends with the window may go on in the next one.
                if end < len(self._text) or not self._extend():
                    break
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LONGEST_ROW or not self._extend():
                    self.fail(error.msg)
            except RecursionError:
                self.fail("too many brackets within each other")
        piece = self._text[self._at : end]
        length = len(piece) if piece.isascii() else len(piece.encode())
        row = PlacedRow(self._offset, length, value)
        self._at, self._offset = end, self._offset + length
        self._rows += 1
        return row

    def _extend(self) -> bool:
        """Reads on, twice as far for a row that did not end; False at the end of the file."""
        rest = self._text[self._at :]
        data = self._file.read(max(_CHUNK, len(rest)))
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self.fail(f"no UTF-8 text: {error.reason}")
        self._text, self._at = rest + more, 0
        return bool(data)

    def fail(self, problem: str) -> NoReturn:
        raise UserError(
            f"instructions file {self._name} is not valid JSON after {self._rows} rows "
            f"({problem}); it may be cut off: fetch or make it again."
        )
