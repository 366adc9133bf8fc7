"""Which dialogues share a row: best-fit-decreasing under a token and a picture limit."""

import array
import dataclasses

import numpy as np
from jaxtyping import Int32, Int64

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import progress


@dataclasses.dataclass(frozen=True, eq=False)
class Sizes:
    """The tokens and pictures of N dialogues, which are those of record 0, of record 1, ...

    A handful of bytes for each: the sizes of millions of dialogues fit where their text does not.
    words: over all turns, as whitespace separates them, and negative without a picture, as the
      reference's sampler has them; at least 1 in size.
    """

    dialogues: Int32[np.ndarray, "R"]
    tokens: Int32[np.ndarray, "N"]
    pictures: Int32[np.ndarray, "N"]
    words: Int32[np.ndarray, "N"]

    def __post_init__(self) -> None:
        each = {len(self.tokens), len(self.pictures), len(self.words)}
        if each != {int(self.dialogues.sum())}:
            raise ValueError("tokens, pictures and words must have one number for each dialogue")

    def records(self, start: int, stop: int) -> "Sizes":
        """The sizes of records `start` to `stop`, which there are 0, 1, ..."""
        ends = np.cumsum(self.dialogues, dtype=np.int64)
        first, last = (int(ends[n - 1]) if n else 0 for n in (start, stop))
        here = slice(first, last)
        dialogues = self.dialogues[start:stop]
        return Sizes(dialogues, self.tokens[here], self.pictures[here], self.words[here])

    def place(self, number: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n 2"]:
        """(record, place in it) of the dialogues of these numbers, 0 to N - 1."""
        ends = np.cumsum(self.dialogues, dtype=np.int64)
        record = np.searchsorted(ends, number, side="right")
        return np.stack([record, number - (ends - self.dialogues)[record]], 1).astype(np.int32)


def planned_numbers(sizes: Sizes, pictures_per_row: int) -> Int64[np.ndarray, "n"]:
    """The numbers of the dialogues that are to be planned: all that have tokens."""
    numbers = np.flatnonzero(sizes.tokens > 0)
    if not len(numbers):
        raise UserError("there is no dialogue to plan; check the dataset.")
    pictures = sizes.pictures[numbers]
    if (pictures > pictures_per_row).any():
        worst = int(pictures.argmax())
        record, place = sizes.place(numbers[worst : worst + 1])[0].tolist()
        raise UserError(
            f"dialogue {place} of record {record} shows {pictures[worst]} "
            f"pictures, but a row has {pictures_per_row} picture slots; raise pictures_per_row."
        )
    return numbers


def _best_fit(
    tokens: Int32[np.ndarray, "n"],
    slots: Int32[np.ndarray, "n"],
    row_length: int,
    pictures_per_row: int,
) -> Int32[np.ndarray, "n"]:
    """The row of each dialogue: the open one where the fewest tokens stay free, else a new one.

    Rows with the same free tokens and slots are interchangeable, so only which (slots, tokens)
    pairs are open is searched: one big integer for each number of free slots, whose bit r says
    that some row has r tokens free. Among equal rows the one with the fewest free slots is taken,
    so that text-only dialogues leave picture slots to the others.
    """
    open_bits = [0] * (pictures_per_row + 1)
    open_rows: dict[tuple[int, int], list[int]] = {}
    rows = 0
    chosen = array.array("i")
    sizes = zip(map(int, tokens), map(int, slots), strict=True)
    for need, pictures in progress(sizes, "packing", total=len(tokens), unit="dialogue"):
        best_free, best_slots = row_length + 1, -1
        for free_slots in range(pictures, pictures_per_row + 1):
            fitting = open_bits[free_slots] >> need
            if fitting:
                free = need + (fitting & -fitting).bit_length() - 1
                if free < best_free:
                    best_free, best_slots = free, free_slots
        if best_slots < 0:
            row, best_free, best_slots = rows, row_length, pictures_per_row
            rows += 1
        else:
            same = open_rows[best_slots, best_free]
            row = same.pop()
            if not same:
                open_bits[best_slots] &= ~(1 << best_free)
        left = best_slots - pictures, best_free - need
        open_rows.setdefault(left, []).append(row)
        open_bits[left[0]] |= 1 << left[1]
        chosen.append(row)
    return np.array(chosen, np.int32)


def make_packed_plan(
    sizes: Sizes, row_length: int, pictures_per_row: int, seed: int
) -> Int32[np.ndarray, "R S 4"]:
    """R rows of up to S dialogues as (record, dialogue, tokens, pictures), padded with -1, in
    shuffled order.

    Args:
      sizes: of all dialogues; longer ones count as `row_length`, one of 0 tokens is left out.
      row_length: T, most tokens in a row.
      pictures_per_row: M, most pictures in a row.
      seed: decides which of equally long dialogues meet, and the order of the rows.

    Raises UserError where a dialogue shows more than M pictures, or nothing is to be planned.
    """
    numbers = planned_numbers(sizes, pictures_per_row)
    rng = np.random.default_rng([seed, 0])
    numbers = numbers[rng.permutation(len(numbers))]
    tokens = np.minimum(sizes.tokens[numbers], row_length)
    # Picture slots run out before tokens where rows are long; text alone then fills what is left.
    # Longest first regardless of pictures took up to a tenth more rows.
    longest_first = np.lexsort((-tokens, -sizes.pictures[numbers]))
    numbers, tokens = numbers[longest_first], tokens[longest_first]
    row = _best_fit(tokens, sizes.pictures[numbers], row_length, pictures_per_row)
    samples = np.bincount(row)
    by_row = np.argsort(row, kind="stable")
    place = np.arange(len(row)) - np.repeat(np.cumsum(samples) - samples, samples)
    rows = np.full((len(samples), samples.max(), 4), -1, np.int32)
    rows[row[by_row], place] = plan_columns(sizes, numbers[by_row], row_length)
    return rng.permutation(rows)


def plan_columns(
    sizes: Sizes, numbers: Int64[np.ndarray, "n"], row_length: int
) -> Int32[np.ndarray, "n 4"]:
    """These dialogues as a plan writes them: (record, dialogue, tokens, pictures)."""
    tokens = np.minimum(sizes.tokens[numbers], row_length)
    return np.column_stack([sizes.place(numbers), tokens, sizes.pictures[numbers]]).astype(np.int32)
