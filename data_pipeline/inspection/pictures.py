"""The pictures of a folder, each looked at once: its size, and whether the loader can decode it."""

import io
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from etils import epath
from PIL import Image

from data_pipeline.common.errors import BadRecordError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress
from data_pipeline.images.transforms import decode_picture
from data_pipeline.inspection.box_checks import Size
from data_pipeline.inspection.findings import Findings

_READ_AHEAD = 64
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")

A = TypeVar("A")
B = TypeVar("B")


def header_size(picture: bytes | epath.Path) -> Size | None:
    """The size that a picture's first bytes claim; None where they are no picture's."""
    try:
        file = io.BytesIO(picture) if isinstance(picture, bytes) else picture.open("rb")
        with file, Image.open(file, formats=_FORMATS) as opened:
            return opened.size
    # Decoders answer hostile bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception:
        return None


def only_size(sizes: Sequence[Size | None]) -> Size | None:
    """The size of the only picture; None of several, as no box says on which of them it lies."""
    return sizes[0] if len(sizes) == 1 else None


def media_type(data: bytes) -> str | None:
    """What a browser calls the picture's format; None where the bytes are no picture's."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            return opened.get_format_mimetype()
    except Exception:
        return None


def in_threads(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yields the function's values in order; threads work ahead, but never far ahead."""
    remaining = iter(items)
    with ThreadPoolExecutor() as pool:
        while batch := list(itertools.islice(remaining, _READ_AHEAD)):
            yield from pool.map(function, batch)


def decoding_fault(data: bytes, name: str) -> str | None:
    """Why the loader's decoder refuses the picture; None where it takes it."""
    try:
        decode_picture(data, name)
    except BadRecordError as error:
        return str(error)
    return None


class PictureFolder:
    """The size of each picture of a folder, read from its first bytes once."""

    def __init__(self, folder: PathLike, findings: Findings):
        self._root = epath.Path(folder)
        self._findings = findings
        self._sizes: dict[str, Size | None] = {}

    def __len__(self) -> int:
        """How many pictures were asked for, absent ones too."""
        return len(self._sizes)

    def size(self, image: str) -> Size | None:
        """Its width and height in pixels; None where it is missing or no picture, which is noted
        the first time."""
        if image not in self._sizes:
            self._sizes[image] = self._look(image)
        return self._sizes[image]

    def _look(self, image: str) -> Size | None:
        path = self._root / image
        if not path.exists() or path.is_dir():
            self._findings.add("missing_picture", image, f"there is no file {path}.")
            return None
        size = header_size(path)
        if size is None:
            self._note_fault(image, self._fault(image))
        return size

    def decode(self, sample: int | None, seed: int) -> int:
        """Decodes all pictures that were asked for, or `sample` of them, notes the broken ones and
        returns how many were decoded."""
        names = sorted(image for image, size in self._sizes.items() if size is not None)
        if sample is not None and sample < len(names):
            names = sorted(random.Random(seed).sample(names, sample))
        faults = in_threads(self._fault, names)
        for name, fault in zip(progress(names, "decoding", unit="picture"), faults, strict=True):
            self._note_fault(name, fault)
        return len(names)

    def _fault(self, image: str) -> str | None:
        try:
            return decoding_fault((self._root / image).read_bytes(), image)
        except OSError as error:
            return f"picture {image} can't be read ({error.strerror})."

    def _note_fault(self, image: str, fault: str | None) -> None:
        if fault is not None:
            self._findings.add("broken_picture", image, fault)
