"""`check_dataset`: a dataset validated from JSON to shard."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.common.progress import progress
from data_pipeline.inspection.dialogue_checks import DialogueChecks, row_defect
from data_pipeline.inspection.findings import Findings, Found, open_findings
from data_pipeline.inspection.ledger import Ledger
from data_pipeline.inspection.pictures import PictureFolder, only_size
from data_pipeline.inspection.reading import Reading
from data_pipeline.inspection.shard_checks import check_shards
from data_pipeline.records.llava_rows import LlavaRow, read_llava_rows


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """`counts` says how much was looked at, `found` what is wrong, by the names of DEFECTS.

    errors, warnings: how many of each were found. passed: no error, and if strict no warning.
    """

    counts: dict[str, int]
    found: dict[str, Found]
    errors: int
    warnings: int
    passed: bool


def check_dataset(
    llava_paths: Sequence[PathLike] = (),
    images_folder: PathLike | None = None,
    data_folder: PathLike | None = None,
    split: str = "train",
    reading: Reading | None = None,
    sample: int | None = None,
    seed: int = 0,
    exclude_ids: PathLike | None = None,
    strict: bool = False,
    report_path: PathLike | None = None,
) -> CheckReport:
    """What is wrong with LLaVA-format files, a dataset's shards, or shards made of such files.

    Everything is streamed. Where both are given, dialogues are checked as rows, and records must
    hold the same: every usable row in exactly one.

    Args:
      llava_paths: JSON files in LLaVA's format.
      images_folder: their pictures' folder; without it pictures, and where boxes lie on the padded
        square, are not looked at.
      data_folder: a folder that `write_dataset` wrote; its records carry their pictures.
      split: the dataset's split.
      reading: how training would read dialogues; without it tokens are not counted.
      sample: how many pictures are decoded, drawn by `seed`; None for all of them.
      exclude_ids: a file of ids, a line each, that no picture file may be named by.
      strict: warnings fail too.
      report_path: where every finding goes, one JSON object a line.

    Raises UserError where nothing is given, or a file is absent or no list of rows.
    """
    if not llava_paths and data_folder is None:
        raise UserError("there is nothing to check; give LLaVA-format files or a dataset's folder.")
    if sample is not None and sample < 0:
        raise UserError(f"the sample is {sample} pictures; expected 0 or more.")
    held_out = read_ids(exclude_ids) if exclude_ids is not None else frozenset()
    counts: Counter[str] = Counter()
    with open_findings(report_path) as findings:
        dialogues = DialogueChecks(findings, reading, held_out)
        ledger = Ledger() if llava_paths and data_folder is not None else None
        if llava_paths:
            pictures = None if images_folder is None else PictureFolder(images_folder, findings)
            for path in llava_paths:
                counts.update(_check_rows(path, pictures, findings, dialogues, ledger))
            if pictures is not None:
                counts["pictures"] = len(pictures)
                counts["pictures_decoded"] = pictures.decode(sample, seed)
        if data_folder is not None:
            unchecked = None if llava_paths else dialogues
            counts.update(
                check_shards(data_folder, split, findings, sample, seed, unchecked, ledger)
            )
        counts.update(dialogues.counts)
        found = findings.found()
    errors, warnings = (
        sum(one.count for one in found.values() if one.severity == severity)
        for severity in ("error", "warning")
    )
    passed = not errors and not (strict and warnings)
    return CheckReport(dict(counts), found, errors, warnings, passed)


def read_ids(path: PathLike) -> frozenset[str]:
    """The ids of a text file, one a line. Raises UserError where it is absent or empty."""
    ids = frozenset(require_file(path, "file of ids").read_text().split())
    if not ids:
        raise UserError(f"file of ids {path} is empty; expected an id a line.")
    return ids


def _check_rows(
    path: PathLike,
    pictures: PictureFolder | None,
    findings: Findings,
    dialogues: DialogueChecks,
    ledger: Ledger | None,
) -> Counter[str]:
    counts: Counter[str] = Counter()
    file_name = os.path.basename(os.fspath(path))
    for row in progress(read_llava_rows(path), f"checking {file_name}", unit="row"):
        counts["rows"] += 1
        where = f"{file_name}: {row.id if not isinstance(row, LlavaRow) else row.dialogue.id}"
        if not isinstance(row, LlavaRow):
            findings.add(row_defect(row.reason), where, row.reason)
            continue
        if row.dropped_opening:
            findings.add("opening_by_gpt", where, "its first turn is gpt's; LLaVA leaves it out.")
        names = () if pictures is None else picture_names(row.image)
        sizes = [pictures.size(name) for name in names if pictures is not None]
        dialogues.check(where, row.image, only_size(sizes), row.dialogue)
        if ledger is not None:
            ledger.add_row(row.image, row.dialogue)
    return counts
