"""An append-only JSONL file that survives `kill -9`: what was finished is never asked for again."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from data_pipeline.common.errors import UserError

SYNC_SECONDS = 1.0
"""A row has left this process when `add` returns, so killing the process loses none. With the first
row after so many seconds, and on closing, the file is also forced to the disk; what was written
since then may be lost if the machine loses power."""


class Journal:
    """Rows on local disk, each with a unique string `key`; a torn last line is cut off on opening.

    `identity` says what the rows belong to (a hash of the inputs): a journal of other inputs is an
    error, never silently mixed in. Memory holds where each row stands, not the row.

    Work that costs something is announced with `begin`; `in_flight` are the keys that the last
    process to write here had begun and not finished when it was stopped. `watch` is shown each line
    on opening: `{"key", "value"}` of a row, `{"begin", "value"}` of an announcement,
    `{"end", "value"}` of one that was taken back. The file is made by the first write. Only one
    process may hold it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: str,
        watch: Callable[[dict[str, Any]], None] | None = None,
    ):
        self.path = Path(path)
        self.in_flight: set[str] = set()
        self._header = {"identity": identity}
        self._places: dict[str, int] = {}
        self._process = 0
        self._size = 0
        self._synced = time.monotonic()
        self._file: IO[bytes] | None = None
        if self.path.exists():
            self._open()
            try:
                self._recover(watch)
            except BaseException:
                self.close()  # or the lock would outlive the error
                raise

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"journal {self.path} is in use by another process; wait for it to end, "
                "or choose another output folder."
            ) from None
        except OSError:
            pass  # a file system that knows no locks
        return self._file

    def _recover(self, watch: Callable[[dict[str, Any]], None] | None) -> None:
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
                    if row != self._header:
                        raise UserError(
                            f"journal {self.path} belongs to other inputs or settings; "
                            "choose another output folder, or move the journal away to start over."
                        )
                else:
                    self._note(row)
                    if watch is not None:
                        watch(row)
                self._size += len(line)
        os.truncate(self.path, self._size)

    def _note(self, row: dict[str, Any]) -> None:
        if "key" in row:
            self._places[row["key"]] = self._size
            self.in_flight.discard(row["key"])
        elif "begin" in row:
            if row["process"] > self._process:
                self._process = row["process"]
                self.in_flight.clear()
            self.in_flight.add(row["begin"])
        else:
            self.in_flight.discard(row["end"])

    def _write(self, row: dict[str, Any]) -> None:
        file = self._file or self._open()
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        if self._size == 0:
            header = (json.dumps(self._header) + "\n").encode()
            file.write(header)
            self._size = len(header)
        if "key" in row:
            self._places[row["key"]] = self._size
        file.write(line)
        file.flush()
        self._size += len(line)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync(file)

    def _sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())
        self._synced = time.monotonic()

    def begin(self, key: str, value: Any = None) -> None:
        """Announces work on `key`; `value` is shown to whoever watches the next opening."""
        self._write({"begin": key, "process": self._process + 1, "value": value})

    def end(self, key: str, value: Any = None) -> None:
        """Takes an announcement back: the work came to nothing."""
        self._write({"end": key, "value": value})

    def add(self, key: str, value: Any) -> None:
        """Appends one row; on return it has left this process. It takes the place of an earlier
        row of that key."""
        self._write({"key": key, "value": value})

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Any:
        place = self._places[key]
        assert self._file is not None
        self._file.seek(place)
        return json.loads(self._file.readline())["value"]

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        if self._file is not None:
            self._sync(self._file)
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
