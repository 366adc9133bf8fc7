"""What is wrong with a dataset: each kind of defect, how grave it is, and a tally with examples."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, Literal

from data_pipeline.common.files import PathLike, open_atomic

Severity = Literal["error", "warning"]


@dataclasses.dataclass(frozen=True)
class Defect:
    """`error`: the pipeline rejects it or a model learns something wrong; `warning`: it trains, but
    less well than it could. `says` completes "n ..."."""

    severity: Severity
    says: str


DEFECTS: dict[str, Defect] = {
    "bad_row": Defect("error", "rows with a wrong id, role, label, order of turns or picture path"),
    "image_marker": Defect("error", "rows with a picture and <image> absent or misplaced"),
    "missing_picture": Defect("error", "pictures that are not in the images folder"),
    "broken_picture": Defect("error", "pictures that the loader can't decode"),
    "malformed_box": Defect("error", "boxes that are not [x1, y1, x2, y2]"),
    "box_out_of_range": Defect("error", "boxes that leave 0..1, such as boxes in pixels"),
    "box_without_area": Defect("error", "boxes with x2 <= x1 or y2 <= y1"),
    "box_in_padding": Defect("error", "boxes that show padding alone: of another box system"),
    "box_tags": Defect("error", "turns with <st> or <ed>, which the raw format alone has"),
    "held_out": Defect("error", "pictures that are to be held out"),
    "unwritable": Defect("error", "dialogues that the template can't write"),
    "dataset_unreadable": Defect("error", "datasets that can't be opened"),
    "shard_damaged": Defect("error", "shards with another content than was written"),
    "wrong_count": Defect("error", "counts in the manifest that don't hold"),
    "tfds_metadata": Defect("error", "facts in TFDS's metadata that don't hold"),
    "unreadable_record": Defect("error", "records that can't be read"),
    "manifest_differs": Defect("error", "records that are not what the manifest says"),
    "not_in_shards": Defect("error", "usable rows that are in no record"),
    "not_in_json": Defect("error", "dialogues of records that no row accounts for"),
    "text_differs": Defect("error", "dialogues whose text is not that of their row"),
    "box_reaches_padding": Defect("warning", "boxes that stick out of the picture"),
    "empty_answer": Defect("warning", "dialogues with an empty answer"),
    "empty_question": Defect("warning", "dialogues with an empty question"),
    "unanswered_question": Defect("warning", "dialogues that end with a question"),
    "opening_by_gpt": Defect("warning", "dialogues whose opening turn by gpt is dropped"),
    "role_in_text": Defect("warning", 'dialogues with " ASSISTANT: " inside a turn'),
    "special_token_in_text": Defect("warning", "dialogues with a literal <s>, </s> or <unk>"),
    "marker_in_text": Defect("warning", "dialogues with a literal <image> that is read as text"),
    "truncated": Defect("warning", "dialogues that are cut at the row's length"),
    "nothing_to_learn": Defect("warning", "dialogues without a token to learn from"),
    "duplicate_text": Defect("warning", "dialogues that repeat another about the same picture"),
    "duplicate_id": Defect("warning", "dialogues with the id of another one"),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """How often a defect was found, and the first places: (where, what is there)."""

    severity: Severity
    says: str
    count: int
    examples: tuple[tuple[str, str], ...]


class Findings:
    """Counts defects and keeps the first few of each kind; all of them go to the open `file`."""

    def __init__(self, keep: int = 3, file: IO[Any] | None = None):
        self._keep = keep
        self._file = file
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, name: str, where: str, detail: str) -> None:
        defect = DEFECTS[name]
        self._counts[name] += 1
        examples = self._examples.setdefault(name, [])
        if len(examples) < self._keep:
            examples.append((where, detail))
        if self._file is not None:
            row = {"defect": name, "severity": defect.severity, "where": where, "detail": detail}
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def found(self) -> dict[str, Found]:
        """The defects that occur, in the order of DEFECTS."""
        return {
            name: Found(
                defect.severity, defect.says, self._counts[name], tuple(self._examples[name])
            )
            for name, defect in DEFECTS.items()
            if self._counts[name]
        }


@contextlib.contextmanager
def open_findings(path: PathLike | None, keep: int = 3) -> Iterator[Findings]:
    """Findings that are also written to `path`, one JSON object a line; it appears at the end."""
    if path is None:
        yield Findings(keep)
        return
    with open_atomic(path) as file:
        yield Findings(keep, file)
