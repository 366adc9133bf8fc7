"""Several files of instructions become one mixture: recognised, counted, shuffled, written down."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from data_pipeline.common.dialogue import IMAGE_MARKER
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, content_hash, file_sha256, write_json
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.recipe.mixture_rows import placed_rows, read_row
from data_pipeline.recipe.mixture_spec import NO_PICTURE, Mixture, Part


@dataclasses.dataclass(frozen=True)
class MixReport:
    """`parts` counts the rows of each part (those left out too), `folders` the taken rows by the
    first folder of their pictures, `notes` is what a user should know and is no error."""

    rows: int
    parts: dict[str, int]
    folders: dict[str, int]
    rejected: dict[str, int]
    notes: list[str]
    manifest: str
    sha256: str


def mix(
    mixture: Mixture,
    out: PathLike,
    given: Mapping[str, PathLike] | None = None,
    home: PathLike | None = None,
    seed: int = 0,
    shuffle: bool = True,
    allow_partial: bool = False,
    max_bad: int | None = None,
) -> MixReport:
    """Writes the mixture as one LLaVA-format file, and beside it `<stem>.manifest.json`.

    Inputs lie in the folder `home` under the names that the mixture gives, or where `given` says,
    by the name of an input or of a part: a part with a file of its own takes all rows of that and
    none of the shared file. A part that is left out may be given a file too: the shared file's rows
    that stand in it (same picture, same texts) are then that part's, whatever the rules say.

    The rows are shuffled by `seed`, or else stand part after part in the files' order. Rows that no
    part takes go to `<stem>.quarantine.jsonl`. Memory holds the rows' places alone. Raises
    UserError naming absent inputs and every part whose count is wrong; `allow_partial` makes these
    notes.
    """
    target = epath.Path(out)
    files = mixture.files(given or {}, home)
    quarantine = Quarantine(target.parent / f"{target.stem}.quarantine.jsonl", max_bad)
    notes: list[str] = []
    sources = _sources(mixture, files, given or {}, allow_partial, notes)
    index = _Index(mixture)
    for source in sources:
        index.add(source, quarantine)
    quarantine.save()
    notes += [
        f"{count} rows of {name} in the shared file give way to its own file"
        for name, count in index.replaced.items()
    ]
    problems = _count_problems(mixture, index.counts, notes)
    if len(quarantine):
        problems.append(f"{len(quarantine)} rows are of no part (see {quarantine.path})")
    if problems and not allow_partial:
        raise UserError(
            f"mixture {mixture.name}: {'; '.join(problems)}. Fetch the files again, give a part a "
            "file of its own (--input PART=FILE), or take what there is with --allow-partial."
        )
    index.write(sources, target, np.random.default_rng([seed]) if shuffle else None)
    report = MixReport(
        rows=len(index.part),
        parts=index.counts,
        folders=dict(sorted(index.folders.items())),
        rejected=quarantine.counts(),
        notes=notes + problems,
        manifest=str(target.parent / f"{target.stem}.manifest.json"),
        sha256=file_sha256(target),
    )
    used = {source.name: source.path for source in sources}
    used |= {name: files[name] for name in given or {}}
    _write_manifest(report, mixture, used, seed if shuffle else None)
    return report


@dataclasses.dataclass(frozen=True)
class _Source:
    """A file and the parts that its rows may fall into.

    `own`: it is one part's alone. Rows of the parts in `replaced` come from files of their own.
    Rows whose digest is in `left_out` are left out as the part that it gives.
    """

    name: str
    path: epath.Path
    parts: tuple[Part, ...]
    own: bool = False
    replaced: frozenset[str] = frozenset()
    left_out: Mapping[bytes, Part] = dataclasses.field(default_factory=dict)


def _sources(
    mixture: Mixture,
    files: Mapping[str, epath.Path],
    given: Mapping[str, PathLike],
    allow_partial: bool,
    notes: list[str],
) -> list[_Source]:
    own = [part for part in mixture.parts if part.name in given]
    taken = [part for part in own if not part.leave_out]
    sources = [_Source(part.name, files[part.name], (part,), own=True) for part in taken]
    for name in mixture.inputs:
        parts = [part for part in mixture.parts if part.input == name]
        if all(part.leave_out or part in own for part in parts):
            continue
        by_file = [part for part in parts if part.leave_out and part in own]
        sources.append(
            _Source(
                name,
                files[name],
                tuple(part for part in parts if part not in by_file),
                replaced=frozenset(part.name for part in taken),
                left_out={
                    _digest(row.value): part
                    for part in by_file
                    for row in placed_rows(files[part.name])
                },
            )
        )
    missing = [source for source in sources if not source.path.exists()]
    if missing:
        texts = [
            f"{s.name} ({', '.join(p.name for p in s.parts)}): there is no file {s.path}"
            + (f", from {mixture.inputs[s.name].origin}" if s.name in mixture.inputs else "")
            for s in missing
        ]
        if not allow_partial or len(missing) == len(sources):
            raise UserError(
                f"mixture {mixture.name} lacks {'; '.join(texts)}. Fetch it, or say with "
                "--input NAME=FILE where it is; --allow-partial mixes what there is."
            )
        notes += texts
    return [source for source in sources if source not in missing]


class _Index:
    """Which rows are taken and where they lie; counts of all rows by part."""

    def __init__(self, mixture: Mixture):
        self.counts = {part.name: 0 for part in mixture.parts}
        self.folders: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()
        self.part = array("H")
        self._numbers = {part.name: number for number, part in enumerate(mixture.parts)}
        self._source = array("H")
        self._offset = array("Q")
        self._length = array("Q")
        self._sources = 0

    def add(self, source: _Source, quarantine: Quarantine) -> None:
        """Reads a file's rows; those that no part takes are quarantined."""
        rows = progress(placed_rows(source.path), f"read {source.name}", unit="row")
        for number, row in enumerate(rows):
            try:
                part, folder = _part_of(source, row.value)
            except BadRecordError as error:
                row_id = row.value.get("id") if isinstance(row.value, dict) else None
                quarantine.add(f"{source.path.name}[{number}]", str(error), row_id=row_id)
                continue
            if part.name in source.replaced:
                self.replaced[part.name] += 1
                continue
            self.counts[part.name] += 1
            if not part.leave_out:
                self.folders[folder] += 1
                self.part.append(self._numbers[part.name])
                self._source.append(self._sources)
                self._offset.append(row.offset)
                self._length.append(row.length)
        self._sources += 1

    def write(
        self, sources: list[_Source], target: epath.Path, rng: np.random.Generator | None
    ) -> None:
        """Writes the taken rows, part after part, or shuffled by `rng`."""
        order = np.argsort(np.asarray(self.part), kind="stable")
        if rng is not None:
            order = rng.permutation(order)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(source.path.open("rb")) for source in sources]
            write = stack.enter_context(json_list_writer(target))
            for at in progress(order, "write", unit="row"):
                write(read_row(files[self._source[at]], self._offset[at], self._length[at]))


def _part_of(source: _Source, row: Any) -> tuple[Part, str]:
    """A row's part and the first folder of its picture. Raises BadRecordError."""
    conversations = row.get("conversations") if isinstance(row, dict) else None
    image = row.get("image", "") if isinstance(row, dict) else None
    if not isinstance(conversations, list) or not isinstance(image, str):
        raise BadRecordError("malformed_row: expected conversations and, if any, one image.")
    folder = image.partition("/")[0] if image else NO_PICTURE
    if source.left_out and (part := source.left_out.get(_digest(row))) is not None:
        return part, folder
    if source.own:
        (part,) = source.parts
        if part.folder not in (None, folder):
            raise BadRecordError(
                f"wrong_folder: {image!r} is not in {part.folder}/, where {part.name} lies."
            )
        return part, folder
    questions = tuple(
        str(turn.get("value")).lower().replace("\u2019", "'")
        for turn in conversations
        if isinstance(turn, dict) and turn.get("from") == "human"
    )
    for part in source.parts:
        if part.fits(folder, questions):
            return part, folder
    first = questions[0][:60] if questions else ""
    raise BadRecordError(f"no_part: none fits the picture {image!r} and the question {first!r}.")


def _digest(row: Any) -> bytes:
    """What is the same of a row in all files: the picture's name without folders, and the texts."""
    row = row if isinstance(row, dict) else {}
    turns = row.get("conversations")
    texts = [str(row.get("image", "")).rpartition("/")[2]]
    for turn in turns if isinstance(turns, list) else []:
        value = turn.get("value") if isinstance(turn, dict) else None
        texts.append(str(value).replace(IMAGE_MARKER, "").strip())
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).digest()


def _count_problems(mixture: Mixture, counts: Mapping[str, int], notes: list[str]) -> list[str]:
    """The wrong counts, each as half a sentence; a wrong split of a right sum becomes a note."""
    wrong: list[str] = []
    groups: dict[str, list[Part]] = {}
    for part in mixture.parts:
        groups.setdefault(part.together or part.name, []).append(part)
    for parts in groups.values():
        names = " and ".join(part.name for part in parts)
        expected = [part.rows for part in parts if part.rows is not None]
        found = sum(counts[part.name] for part in parts)
        if len(expected) < len(parts):
            if not found and not any(part.leave_out for part in parts):
                wrong.append(f"{names} has no row")
        elif found != sum(expected):
            wrong.append(f"{names} has {found} rows, expected {sum(expected)}")
        elif any(counts[part.name] != part.rows for part in parts):
            split = ", ".join(f"{p.name} {counts[p.name]} of {p.rows}" for p in parts)
            notes.append(f"{names} have the right sum, but the rule splits it otherwise: {split}")
    return wrong


def _write_manifest(
    report: MixReport, mixture: Mixture, used: Mapping[str, epath.Path], seed: int | None
) -> None:
    """Writes what makes the file again, without times or folders, so that the same mixture gives
    the same manifest."""
    left_out = {part.name for part in mixture.parts if part.leave_out}
    expected = {part.name: part.rows for part in mixture.parts}
    write_json(
        report.manifest,
        {
            "mixture": mixture.name,
            "rules": content_hash([dataclasses.asdict(part) for part in mixture.parts]),
            "version": importlib.metadata.version("svit-jax"),
            "order": "parts" if seed is None else "shuffled",
            "seed": seed,
            "rows": report.rows,
            "sha256": report.sha256,
            "inputs": {
                name: {"file": path.name, "sha256": file_sha256(path)}
                for name, path in used.items()
            },
            "parts": {
                name: {"rows": rows, "expected": expected[name], "taken": name not in left_out}
                for name, rows in report.parts.items()
            },
            "folders": report.folders,
            "rejected": report.rejected,
            "notes": report.notes,
        },
    )
