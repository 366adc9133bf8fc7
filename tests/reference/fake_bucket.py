"""A bucket for tests: `gs://` paths kept in a folder, without what a bucket does not have."""

import fsspec
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class FakeBucket(DirFileSystem):
    """What `etils.epath` finds behind gs://. It knows no renaming and no appending, and an object
    that is being written can't be seen before it is closed."""

    cachable = False

    def __init__(self, root: str):
        super().__init__(path=str(root), fs=LocalFileSystem(auto_mkdir=True))

    def _join(self, path):
        if isinstance(path, str):
            path = path.removeprefix("gs://")
        return super()._join(path)

    def open(self, path, mode="rb", **keywords):
        if "a" in mode or "+" in mode:
            raise NotImplementedError(f"a bucket can't append: {path}")
        # The local file system keeps what is written aside until it is closed.
        return super().open(path, mode=mode, autocommit=True, **keywords)

    def _no_renaming(self, path, *_, **__):
        raise NotImplementedError(f"a bucket can't rename: {path}")

    mv = mv_file = rename = move = _no_renaming


def use_fake_bucket(monkeypatch, root) -> None:
    """From here on gs:// is `root`."""
    bucket = FakeBucket(root)
    true = fsspec.filesystem
    monkeypatch.setattr(
        fsspec, "filesystem", lambda name, **k: bucket if name in ("gs", "gcs") else true(name, **k)
    )
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
