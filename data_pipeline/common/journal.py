"""An append-only JSONL file that survives `kill -9`: what was finished is never asked for again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from data_pipeline.common.errors import UserError


class Journal:
    """Rows on local disk, each with a unique string `key`; a torn last line is cut off on opening.

    `identity` says what the rows belong to (a hash of the inputs): a journal of other inputs is an
    error, never silently mixed in.
    """

    def __init__(self, path: str | os.PathLike[str], identity: str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, Any] = {}
        if self.path.exists():
            self._recover(identity)
        self._file = self.path.open("a", encoding="utf-8")
        if self.path.stat().st_size == 0:
            self._write({"identity": identity})

    def _recover(self, identity: str) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("torn line")
                    row = json.loads(line)
                except ValueError:
                    if file.read(1):
                        raise UserError(
                            f"journal {self.path}, line {number + 1}, is damaged in the middle; "
                            "move the file away to start over."
                        ) from None
                    break
                if number == 0:
                    if row.get("identity") != identity:
                        raise UserError(
                            f"journal {self.path} belongs to other inputs or settings; "
                            "choose another output folder, or move the journal away to start over."
                        )
                else:
                    self._rows[row["key"]] = row["value"]
                whole += len(line)
        os.truncate(self.path, whole)

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def add(self, key: str, value: Any) -> None:
        """Appends one row; on return it has left this process."""
        self._write({"key": key, "value": value})
        self._rows[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> Iterator[tuple[str, Any]]:
        yield from self._rows.items()

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
