"""Instructions without the defects of the released data; what goes is listed with its reason."""

import contextlib
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from data_pipeline.common.dialogue import IMAGE_MARKER, Role, Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, require_file, write_json
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.generation.kinds import DETAIL_DESCRIPTION, KINDS, REFERRING_QA
from data_pipeline.instructions.defects import (
    EMPTY_DESCRIPTIONS,
    REMARKS,
    defects,
    read_turns,
    remarks,
)
from data_pipeline.instructions.joined import kind_by_text
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS, kind_by_id
from data_pipeline.instructions.pictures import read_pictures
from data_pipeline.instructions.raw import picture_of, read_raw_rows

_RAW_ROLES: Mapping[str, Role] = {"user": "human", "gpt": "gpt"}
_LLAVA_ROLES: Mapping[str, Role] = {"human": "human", "gpt": "gpt"}


@dataclasses.dataclass(frozen=True)
class CleanReport:
    """Dialogues that were kept by kind, dropped by reason, and remarked on (kept ones too).

    `excluded` counts pictures and dialogues of the excluded ids. Of the images whose description
    is known to be empty, `listed_empty` were dropped as such and `listed_described` have another
    text, which was judged like any other.
    """

    kept: dict[str, int]
    dropped: dict[str, int]
    remarks: dict[str, int]
    excluded: dict[str, int]
    listed_empty: int
    listed_described: int


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which dialogues go beside the useless ones: those with a remark in `drop`, those about an
    image in `exclude`, and those about an image outside `known`, where that is given."""

    drop: Collection[str] = ()
    min_pairs: int = 5
    exclude: Collection[int] = frozenset()
    known: Collection[int] | None = None

    def __post_init__(self) -> None:
        for code in self.drop:
            if code not in REMARKS:
                raise UserError(
                    f"there is no remark {code!r} to drop by; choose from: {', '.join(REMARKS)}."
                )


def read_ids(path: PathLike) -> frozenset[int]:
    """The image ids of a text file with one a line, such as SVIT's test_image_ids.txt."""
    lines = require_file(path, "image ids").read_text().split()
    for line in lines:
        if not line.isdecimal():
            raise UserError(f"image ids {path} hold {line[:40]!r}; expected a whole number a line.")
    return frozenset(map(int, lines))


def clean_raw(
    raw: PathLike, out: PathLike, rules: Rules, max_bad: int | None = None
) -> CleanReport:
    """Writes the raw files of the folder `raw` cleaned into the folder `out`, under their names.

    `raw` may also be one of the files, or one in which the kinds are joined. Beside the files stand
    `quarantine.jsonl`, with every dropped dialogue, and `report.json`. A dialogue with a defect
    goes as a whole, since what follows may refer to it; a picture without dialogues goes too.
    """
    source, folder = epath.Path(raw), epath.Path(out)
    alone = source.exists() and not source.is_dir()
    files = [source] if alone else [source / f"{kind}.json" for kind in KINDS]
    files = [path for path in files if path.exists()]
    if not files:
        raise UserError(f"{raw} holds none of the raw files {', '.join(KINDS)} (.json).")
    if (folder / files[0].name).resolve() == files[0].resolve():
        raise UserError(f"{out} is the folder of the raw files; choose another one.")
    cleaner = _Cleaner(rules, Quarantine(folder / "quarantine.jsonl", max_bad))
    with contextlib.ExitStack() as stack:
        for path in files:
            write = stack.enter_context(json_list_writer(folder / path.name))
            kind = path.stem if path.stem in KINDS else None
            for place, row in progress(read_raw_rows(path), f"clean {path.stem}", unit="picture"):
                kept = cleaner.conversations(kind, place, row)
                if kept:
                    write({**row, "conversations": kept})
    return cleaner.finish(folder / "report.json")


def clean_llava(
    llava: PathLike,
    out: PathLike,
    rules: Rules,
    sizes: PathLike | None = None,
    prefix: str = "",
    max_bad: int | None = None,
) -> CleanReport:
    """Writes a LLaVA-format file cleaned to the file `out`; rows are kept as they stand.

    A row's kind is the one in its id, else referring where a question ends in one of SVIT's three
    instructions; of other rows only the form is judged, and that there is text. Rows without a
    picture are not SVIT's and are kept. Image ids are found by the row's path in `sizes` (with
    `prefix` before its paths). The quarantine and the report stand beside `out`.
    """
    target = epath.Path(out)
    ids = {}
    if sizes is not None:
        ids = {picture.image: key for key, picture in read_pictures(sizes, prefix).items()}
    elif rules.exclude:
        raise UserError(
            "image ids can be excluded from rows only by the pictures' paths; give "
            "--image-data or --scenes, and the --prefix of the paths."
        )
    quarantine = Quarantine(target.with_suffix(".quarantine.jsonl"), max_bad)
    cleaner = _Cleaner(rules, quarantine)
    with json_list_writer(target) as write:
        for place, row in progress(read_raw_rows(llava), "clean", unit="row"):
            if cleaner.row(place, row, ids):
                write(row)
    return cleaner.finish(target.with_suffix(".report.json"))


class _Cleaner:
    """Judges dialogues, and counts."""

    def __init__(self, rules: Rules, quarantine: Quarantine):
        self._rules = rules
        self._quarantine = quarantine
        self._kept: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()
        self._excluded_pictures: set[int | str] = set()
        self._excluded_dialogues = 0
        self._listed_empty = 0
        self._listed_described = 0
        self._asked: set[bytes] = set()

    def conversations(self, kind: str | None, place: str, row: Any) -> list[Any]:
        """The conversations of a raw row that are kept; without `kind` it is found by the text."""
        try:
            image_id, conversations = picture_of(row)
        except BadRecordError as error:
            self._quarantine.add(place, str(error))
            return []
        if self._excludes(image_id, len(conversations)):
            return []
        kept = []
        for number, item in enumerate(conversations):
            content = item.get("content") if isinstance(item, dict) else None
            name = f"{kind or 'joined'}/{image_id}/{number}"
            if self._keep(name, kind, image_id, content, _RAW_ROLES):
                kept.append(item)
        return kept

    def row(self, place: str, row: Any, ids: Mapping[str, int]) -> bool:
        """Whether a LLaVA row is kept."""
        if not isinstance(row, dict):
            self._quarantine.add(place, "malformed_row: expected an object.")
            return False
        image = row.get("image")
        if image is None:
            self._kept["other"] += 1
            return True
        image_id = ids.get(str(image), str(image))
        if self._excludes(image_id, 1):
            return False
        content = _without_marker(row.get("conversations"))
        kind = kind_by_id(row.get("id")) or (REFERRING_QA if _asks_for_boxes(content) else "other")
        return self._keep(str(row.get("id", place)), kind, image_id, content, _LLAVA_ROLES)

    def _excludes(self, image: int | str, dialogues: int) -> bool:
        if image not in self._rules.exclude:
            return False
        self._excluded_pictures.add(image)
        self._excluded_dialogues += dialogues
        return True

    def _keep(
        self, name: str, kind: str | None, image: int | str, content: Any, roles: Mapping[str, Role]
    ) -> bool:
        try:
            turns = read_turns(content, roles)
        except BadRecordError as error:
            self._quarantine.add(name, str(error))
            return False
        kind = kind or kind_by_text(turns, ())
        reason = self._judge(kind, image, turns)
        if image in EMPTY_DESCRIPTIONS:
            if reason is not None and reason.startswith("message_is_empty"):
                self._listed_empty += 1
            elif kind == DETAIL_DESCRIPTION:
                self._listed_described += 1
        if reason is not None:
            self._quarantine.add(name, reason)
            return False
        self._kept[kind] += 1
        return True

    def _judge(self, kind: str, image: int | str, turns: Sequence[Turn]) -> str | None:
        """Why a dialogue goes, None where it stays. Remarks are counted, each once a dialogue."""
        known = self._rules.known
        if known is not None and image not in known and kind != "other":
            return f"no_picture: image {image} is not among the pictures."
        reason = next(defects(kind, turns), None)
        if reason is not None or kind == "other":
            return reason
        found = {
            text.partition(":")[0]: text for text in remarks(kind, turns, self._rules.min_pairs)
        }
        questions = _question_key(kind, image, turns)
        if questions in self._asked:
            found["duplicate"] = "duplicate: an earlier dialogue about this picture asks the same"
        self._remarks.update(found.keys())
        reason = next((text for code, text in found.items() if code in self._rules.drop), None)
        if reason is None:
            self._asked.add(questions)
        return reason

    def finish(self, path: PathLike) -> CleanReport:
        """Writes the quarantine and the report."""
        self._quarantine.save()
        report = CleanReport(
            kept=dict(self._kept),
            dropped=self._quarantine.counts(),
            remarks={code: self._remarks[code] for code in REMARKS if self._remarks[code]},
            excluded={
                "pictures": len(self._excluded_pictures),
                "dialogues": self._excluded_dialogues,
            },
            listed_empty=self._listed_empty,
            listed_described=self._listed_described,
        )
        write_json(path, dataclasses.asdict(report))
        return report


def _question_key(kind: str, image: int | str, turns: Sequence[Turn]) -> bytes:
    questions = "\n".join(turn.text.strip().lower() for turn in turns[::2])
    return hashlib.blake2b(f"{kind}/{image}/{questions}".encode(), digest_size=8).digest()


def _without_marker(conversations: Any) -> Any:
    """The turns of a row with `<image>` taken from the first question, where it belongs."""
    if not isinstance(conversations, list) or not conversations:
        return conversations
    first = conversations[0]
    if not isinstance(first, dict) or not isinstance(first.get("value"), str):
        return conversations
    value = first["value"].replace(IMAGE_MARKER, "", 1)
    return [{**first, "value": value}, *conversations[1:]]


def _asks_for_boxes(conversations: Any) -> bool:
    turns = conversations if isinstance(conversations, list) else []
    values = [turn.get("value") for turn in turns if isinstance(turn, dict)]
    return any(isinstance(value, str) and value.endswith(BOX_INSTRUCTIONS) for value in values)
