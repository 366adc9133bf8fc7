"""What a dataset holds, in figures: lengths, kinds, first words, boxes, pictures, yes and no."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from data_pipeline.common.boxes import NormalBox, find_boxes
from data_pipeline.common.dialogue import Dialogue
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike
from data_pipeline.inspection.box_checks import Size
from data_pipeline.inspection.dialogues import Seen, kind_of, question_text, read_dialogues
from data_pipeline.inspection.reading import Reading

GRID = 16
"""Cells a side of the map of box centres."""

BOX_SIZE_BINS = 20
MOST_KINDS = 20
MOST_PREFIXES = 30

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of whole numbers: `median` and `p95` are the least values that half and 95 % don't exceed;
    `counts` says how often each value occurs."""

    count: int
    mean: float
    median: int
    p95: int
    least: int
    largest: int
    counts: dict[int, int]


def summarise(values: Counter[int]) -> Summary | None:
    """The values' summary; None where there are none."""
    total = values.total()
    if not total:
        return None
    counts = dict(sorted(values.items()))
    mean = sum(value * count for value, count in counts.items()) / total

    def quantile(share: float) -> int:
        below = 0
        for value, count in counts.items():
            below += count
            if below >= share * total:
                return value
        raise AssertionError("the shares of all values sum to one")

    return Summary(total, mean, quantile(0.5), quantile(0.95), min(counts), max(counts), counts)


@dataclasses.dataclass(frozen=True)
class Kind:
    """The dialogues of one kind and their rounds; words are means, of a question and an answer."""

    dialogues: int
    rounds: int
    question_words: float
    answer_words: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """All figures; what is counted by value is a Summary.

    kinds: by the ids' stems, the commonest first. yes_no: answers that begin with the word.
    first_words, first_three_words: the commonest openings of questions, in small letters.
    box_sizes: boxes by the root of their area on the padded square, in twentieths. box_centres: by
      cell of a grid over the padded square, its upper row first. boxes_a_turn: of turns with any.
    picture_sizes: the commonest, as "WIDTHxHEIGHT"; aspect_ratios: width by height in tenths.
    masked_share: of all tokens, those without loss; None without a tokenizer. unwritable: dialogues
      that the template can't write, which have no tokens.
    """

    dialogues: int
    pictures: int
    text_only: int
    skipped_rows: int
    kinds: dict[str, Kind]
    question_words: Summary | None
    answer_words: Summary | None
    rounds: Summary | None
    dialogues_a_picture: Summary | None
    tokens: Summary | None
    masked_share: float | None
    unwritable: int
    first_words: dict[str, int]
    first_three_words: dict[str, int]
    yes_no: dict[str, int]
    boxes: int
    boxes_a_turn: Summary | None
    box_sizes: dict[int, int]
    box_centres: list[list[int]]
    picture_sizes: dict[str, int]
    longer_sides: Summary | None
    aspect_ratios: dict[int, int]


def dataset_statistics(
    llava_paths: Sequence[PathLike] = (),
    images_folder: PathLike | None = None,
    data_folder: PathLike | None = None,
    split: str = "train",
    reading: Reading | None = None,
) -> Statistics:
    """The figures of LLaVA-format files, or of a split's manifest; no picture is decoded.

    Without `images_folder` the pictures of files have no sizes; without `reading` no tokens are
    counted. Raises UserError where nothing can be read.
    """
    skipped: Counter[str] = Counter()
    tally = _Tally(reading)
    for seen in read_dialogues(llava_paths, images_folder, data_folder, split, skipped):
        tally.add(seen)
    if not tally.total["dialogues"]:
        raise UserError("there is no dialogue to count; `svit data check` says what is wrong.")
    return tally.statistics(skipped["rows"])


class _Tally:
    """Counts by value; its memory grows with pictures and distinct openings of questions only."""

    def __init__(self, reading: Reading | None):
        self._reading = reading
        self.total: Counter[str] = Counter()
        self._kinds: dict[str, Counter[str]] = {}
        self._numbers: dict[str, Counter[int]] = {
            name: Counter()
            for name in ("question", "answer", "rounds", "tokens", "boxes", "long", "aspect", "box")
        }
        self._pictures: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._first: Counter[str] = Counter()
        self._first_three: Counter[str] = Counter()
        self._yes_no: Counter[str] = Counter({"yes": 0, "no": 0})
        self._centres = [[0] * GRID for _ in range(GRID)]

    def add(self, seen: Seen) -> None:
        dialogue = seen.dialogue
        self.total["dialogues"] += 1
        self.total["text_only"] += not seen.images
        for image, size in dict(zip(seen.images, seen.sizes, strict=True)).items():
            if image not in self._pictures and size is not None:
                self._add_picture(size)
            self._pictures[image] += 1
        kind = self._kinds.setdefault(kind_of(dialogue.id), Counter())
        kind["dialogues"] += 1
        rounds = 0
        for turn in dialogue.turns:
            if turn.role == "human":
                self._add_question(turn.text, kind)
            else:
                rounds += 1
                self._add_answer(turn.text, kind)
            self._add_boxes(find_boxes(turn.text))
        kind["rounds"] += rounds
        self._numbers["rounds"][rounds] += 1
        if self._reading is not None:
            self._add_tokens(self._reading, dialogue, bool(seen.images))

    def _add_picture(self, size: Size) -> None:
        width, height = size
        self._sizes[f"{width}x{height}"] += 1
        self._numbers["long"][max(size)] += 1
        self._numbers["aspect"][10 * width // height] += 1

    def _add_question(self, text: str, kind: Counter[str]) -> None:
        text = question_text(text)
        words = len(text.split())
        kind.update(questions=1, question_words=words)
        self._numbers["question"][words] += 1
        opening = [match[0].lower() for match in itertools.islice(_WORD.finditer(text), 3)]
        if opening:
            self._first[opening[0]] += 1
            self._first_three[" ".join(opening)] += 1

    def _add_answer(self, text: str, kind: Counter[str]) -> None:
        words = len(text.split())
        kind.update(answers=1, answer_words=words)
        self._numbers["answer"][words] += 1
        first = _WORD.search(text)
        if first is not None and first[0].lower() in self._yes_no:
            self._yes_no[first[0].lower()] += 1

    def _add_boxes(self, boxes: list[NormalBox]) -> None:
        if not boxes:
            return
        self._numbers["boxes"][len(boxes)] += 1
        for box in boxes:
            area = max(0.0, box.x2 - box.x1) * max(0.0, box.y2 - box.y1)
            size = min(int(math.sqrt(area) * BOX_SIZE_BINS), BOX_SIZE_BINS - 1)
            self._numbers["box"][size] += 1
            x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
            self._centres[min(int(y * GRID), GRID - 1)][min(int(x * GRID), GRID - 1)] += 1

    def _add_tokens(self, reading: Reading, dialogue: Dialogue, has_picture: bool) -> None:
        try:
            read = reading.counts(dialogue.turns, has_picture)
        except BadRecordError:
            self.total["unwritable"] += 1
            return
        self._numbers["tokens"][read.tokens] += 1
        self.total.update(kept=read.kept, learned=read.learned)

    def statistics(self, skipped_rows: int) -> Statistics:
        numbers = self._numbers
        kept = self.total["kept"]
        return Statistics(
            dialogues=self.total["dialogues"],
            pictures=len(self._pictures),
            text_only=self.total["text_only"],
            skipped_rows=skipped_rows,
            kinds=_kinds(self._kinds),
            question_words=summarise(numbers["question"]),
            answer_words=summarise(numbers["answer"]),
            rounds=summarise(numbers["rounds"]),
            dialogues_a_picture=summarise(Counter(self._pictures.values())),
            tokens=summarise(numbers["tokens"]),
            masked_share=1 - self.total["learned"] / kept if kept else None,
            unwritable=self.total["unwritable"],
            first_words=dict(_commonest(self._first, MOST_PREFIXES)),
            first_three_words=dict(_commonest(self._first_three, MOST_PREFIXES)),
            yes_no=dict(self._yes_no),
            boxes=numbers["box"].total(),
            boxes_a_turn=summarise(numbers["boxes"]),
            box_sizes=dict(sorted(numbers["box"].items())),
            box_centres=self._centres,
            picture_sizes=dict(_commonest(self._sizes, 10)),
            longer_sides=summarise(numbers["long"]),
            aspect_ratios=dict(sorted(numbers["aspect"].items())),
        )


def _commonest(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    """The commonest first, equals by name: the order must not depend on the order of the rows."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _kinds(kinds: dict[str, Counter[str]]) -> dict[str, Kind]:
    named = _commonest(Counter({k: c["dialogues"] for k, c in kinds.items()}), MOST_KINDS)
    kept = {name: kinds[name] for name, _ in named}
    rest: Counter[str] = Counter()
    for name, counts in kinds.items():
        if name not in kept:
            rest.update(counts)
    if rest:
        kept["other"] = kept.get("other", Counter()) + rest
    return {
        name: Kind(
            counts["dialogues"],
            counts["rounds"],
            counts["question_words"] / max(1, counts["questions"]),
            counts["answer_words"] / max(1, counts["answers"]),
        )
        for name, counts in kept.items()
    }
