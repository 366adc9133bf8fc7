"""Files that are appended to, for a folder that may be a bucket, where nothing can be."""

import tempfile
import time
from pathlib import Path

from etils import epath

from data_pipeline.common.files import PathLike, in_bucket


class Mirror:
    """`local` is where one process writes its logs. For a local folder it is that folder; for one
    in a bucket a scratch folder, begun with `names`, that `push` puts into the bucket file by file,
    each whole."""

    def __init__(self, folder: PathLike, *names: str):
        self._folder = epath.Path(folder)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._pushed: dict[Path, tuple[int, int]] = {}
        self._last = time.monotonic()
        self.local = Path(folder)
        if in_bucket(folder):
            self._scratch = tempfile.TemporaryDirectory()
            self.local = Path(self._scratch.name)
            for name in names:
                if (self._folder / name).exists():
                    (self.local / name).write_bytes((self._folder / name).read_bytes())

    def push(self, at_most_every: float = 0.0) -> None:
        """Puts what changed since the last time; nothing within `at_most_every` seconds of it."""
        if self._scratch is None or time.monotonic() - self._last < at_most_every:
            return
        for path in sorted(self.local.rglob("*")):
            state = (path.stat().st_size, path.stat().st_mtime_ns)
            if path.is_file() and self._pushed.get(path) != state:
                target = self._folder / path.relative_to(self.local).as_posix()
                epath.Path(path).copy(target, overwrite=True)
                self._pushed[path] = state
        self._last = time.monotonic()

    def close(self) -> None:
        if self._scratch is not None:
            self.push()
            self._scratch.cleanup()
