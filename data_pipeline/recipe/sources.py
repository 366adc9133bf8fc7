"""Which downloads of a mixture are missing or damaged, and what mends them."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from etils import epath

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, write_jsonl
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress, progress_bar
from data_pipeline.images.transforms import decode_picture
from data_pipeline.recipe.mixture_rows import placed_rows
from data_pipeline.recipe.mixture_spec import Mixture

_SUFFIXES = (".jpg", ".gif", ".png", ".jpeg", ".JPG", ".GIF", ".PNG", ".JPEG", ".webp", ".bmp")
_NEIGHBOURS = {"VG_100K": "VG_100K_2", "VG_100K_2": "VG_100K"}
_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """A folder's pictures: `on_disk` files in it, of about `expected`; of those that the rows ask
    for (`asked`), how many are absent, empty, cut off or broken, or stand under another name.
    `parts` of the mixture have their pictures there."""

    on_disk: int | None
    expected: int | None
    parts: tuple[str, ...] = ()
    asked: int = 0
    missing: int = 0
    empty: int = 0
    damaged: int = 0
    other_name: int = 0
    origin: str = ""
    mend: str = ""

    @property
    def faults(self) -> int:
        return self.missing + self.empty + self.damaged + self.other_name


@dataclasses.dataclass(frozen=True)
class SourcesReport:
    """`inputs` says of each annotation file "there" or where to fetch it. `problems` is one
    sentence, empty where everything that was looked for is there."""

    inputs: dict[str, str]
    folders: dict[str, FolderReport]
    rows_without_picture: int
    problems: str

    def text(self) -> str:
        """The report to read, a line for a file or a folder, and one for what mends it."""
        lines = [f"{name}: {state}" for name, state in self.inputs.items()]
        for name, folder in self.folders.items():
            state = "no such folder" if folder.on_disk is None else f"{folder.on_disk} files"
            if folder.expected is not None:
                state += f" (about {folder.expected} expected)"
            if folder.asked:
                state += (
                    f"; of {folder.asked} pictures of the rows {folder.missing} missing, "
                    f"{folder.empty} empty, {folder.damaged} damaged, "
                    f"{folder.other_name} under another name"
                )
            parts = f" ({', '.join(folder.parts)})" if folder.parts else ""
            lines.append(f"{name}/{parts}: {state}")
            if folder.on_disk is None or folder.faults:
                lines += [f"  from {folder.origin}"] if folder.origin else []
                lines += [f"  {folder.mend}"] if folder.mend else []
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Finding:
    """What is wrong with a picture; `found` is the path under which it was found instead."""

    image: str
    problem: str
    found: str | None = None


def check_sources(
    images: PathLike,
    mixture: Mixture,
    rows: PathLike | None = None,
    given: Mapping[str, PathLike] | None = None,
    home: PathLike | None = None,
    *,
    decode: bool = False,
    missing: PathLike | None = None,
    mend: PathLike | None = None,
) -> SourcesReport:
    """What of a mixture's downloads is missing or damaged, under the folder `images`.

    Without `rows`, a LLaVA-format file, only the annotation files and the folders are looked for.
    With it, every picture that a row names must be there and not be empty, and with `decode` be one
    that the loader can read; annotation files are then looked for where `given` or `home` name
    some. A picture that lies under another suffix, or in Visual Genome's other folder, is found;
    `mend` gets the rows with the names that were found. `missing` gets a line for each picture with
    a fault.
    """
    if rows is None and (missing or mend or decode):
        raise UserError("pictures are looked for by a file's rows; give it (--rows).")
    root = epath.Path(images)
    wanted, without = _wanted(rows) if rows is not None else ({}, 0)
    findings = list(_findings(root, list(wanted), decode))
    if missing is not None:
        write_jsonl(missing, (dataclasses.asdict(finding) for finding in findings))
    if mend is not None and rows is not None:
        _write_mended(rows, mend, {f.image: f.found for f in findings if f.found})
    inputs = _inputs(mixture, given or {}, home) if rows is None or given or home else {}
    folders = _folders(root, mixture, wanted, findings)
    return SourcesReport(inputs, folders, without, _problems(inputs, folders))


def _wanted(rows: PathLike) -> tuple[dict[str, None], int]:
    """The pictures that rows name, each once, in order; and the number of rows without."""
    images: dict[str, None] = {}
    without = 0
    for row in progress(placed_rows(rows), "read rows", unit="row"):
        image = row.value.get("image") if isinstance(row.value, dict) else None
        if isinstance(image, str):
            images[image] = None
        else:
            without += 1
    return images, without


def _findings(root: epath.Path, images: list[str], decode: bool) -> Iterator[_Finding]:
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar(len(images), "look for pictures", unit="picture") as bar,
    ):
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            found = pool.map(lambda image: _fault(root, image, decode), batch)
            yield from (finding for finding in found if finding is not None)
            bar.update(len(batch))


def _fault(root: epath.Path, image: str, decode: bool) -> _Finding | None:
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        return _Finding(image, "damaged: the path leaves the images folder")
    size, found = _file_size(root / image), image
    if size is None:
        found = next((other for other in _other_names(image) if _file_size(root / other)), "")
        if not found:
            return _Finding(image, "missing")
    if size == 0:
        return _Finding(image, "empty")
    if decode:
        try:
            decode_picture((root / found).read_bytes(), found)
        except BadRecordError as error:
            return _Finding(image, f"damaged: {error}")
    return None if found == image else _Finding(image, "other_name", found)


def _other_names(image: str) -> Iterator[str]:
    """Where a picture may lie instead: with another suffix, or in Visual Genome's other folder."""
    stem, suffix = os.path.splitext(image)
    yield from (f"{stem}{other}" for other in _SUFFIXES if other != suffix)
    folder, _, name = image.rpartition("/")
    above, _, last = folder.rpartition("/")
    if last in _NEIGHBOURS:
        yield f"{above}/{_NEIGHBOURS[last]}/{name}".lstrip("/")


def _file_size(path: epath.Path) -> int | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return None if stat.is_directory else stat.length


def _write_mended(rows: PathLike, out: PathLike, names: Mapping[str, str | None]) -> None:
    with json_list_writer(out) as write:
        for row in progress(placed_rows(rows), "write mended rows", unit="row"):
            value: Any = row.value
            if isinstance(value, dict) and value.get("image") in names:
                value = {**value, "image": names[value["image"]]}
            write(value)


def _inputs(
    mixture: Mixture, given: Mapping[str, PathLike], home: PathLike | None
) -> dict[str, str]:
    states = {}
    for name, path in mixture.files(given, home).items():
        size = _file_size(path)
        if size:
            states[name] = "there"
            continue
        parts = [part.name for part in mixture.parts if name in (part.input, part.name)]
        states[name] = f"{path} is {'missing' if size is None else 'empty'} ({', '.join(parts)})"
        if name in mixture.inputs and mixture.inputs[name].origin:
            states[name] += f"; from {mixture.inputs[name].origin}"
    return states


def _folders(
    root: epath.Path, mixture: Mixture, wanted: Mapping[str, None], findings: list[_Finding]
) -> dict[str, FolderReport]:
    """By folder: those that the rows ask for, or without rows those of the mixture."""
    counts: dict[str, dict[str, int]] = {} if wanted else {name: {} for name in mixture.folders}
    for image in wanted:
        folder = counts.setdefault(mixture.folder_of(image), {})
        folder["asked"] = folder.get("asked", 0) + 1
    for finding in findings:
        folder = counts[mixture.folder_of(finding.image)]
        kind = finding.problem.partition(":")[0]
        folder[kind] = folder.get(kind, 0) + 1
    reports = {}
    for name, counted in counts.items():
        described = mixture.folders.get(name)
        reports[name] = FolderReport(
            on_disk=_files_in(root / name),
            expected=described.pictures if described else None,
            parts=tuple(
                part.name
                for part in mixture.parts
                if part.folder == name.partition("/")[0] and not part.leave_out
            ),
            origin=described.origin if described else "",
            mend=described.mend if described else "",
            **counted,
        )
    return reports


def _files_in(folder: epath.Path) -> int | None:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else None


def _problems(inputs: Mapping[str, str], folders: Mapping[str, FolderReport]) -> str:
    wrong = [name for name, state in inputs.items() if state != "there"]
    for name, folder in folders.items():
        if folder.faults:
            wrong.append(f"{name} ({folder.faults} of {folder.asked} pictures)")
        elif folder.on_disk is None:
            wrong.append(f"{name} (no such folder)")
    return f"missing or damaged: {', '.join(wrong)}; see the report above." if wrong else ""
