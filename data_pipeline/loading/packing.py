"""Which dialogues share a row: best-fit-decreasing under a token and a picture limit."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from data_pipeline.common.errors import UserError
from data_pipeline.common.progress import progress

Sizes = Sequence[Sequence[int]]


def _flatten(
    lengths: Sizes, pictures: Sizes, row_length: int, pictures_per_row: int
) -> tuple[Int32[np.ndarray, "N 2"], Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
    """(record, dialogue), tokens and pictures of all dialogues that are to be planned."""
    counts = np.array([len(record) for record in lengths], np.int64)
    if counts.tolist() != [len(record) for record in pictures]:
        raise ValueError("lengths and pictures must have one number for each dialogue")
    total = int(counts.sum())
    records = np.repeat(np.arange(len(counts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    where = np.stack([records, np.arange(total) - first], axis=1).astype(np.int32)
    tokens = np.fromiter((n for record in lengths for n in record), np.int64, total)
    slots = np.fromiter((n for record in pictures for n in record), np.int64, total)
    kept = tokens > 0
    where, tokens, slots = where[kept], np.minimum(tokens[kept], row_length), slots[kept]
    if not len(where):
        raise UserError("there is no dialogue to plan; check the dataset.")
    if (slots > pictures_per_row).any():
        worst = int(slots.argmax())
        raise UserError(
            f"dialogue {where[worst, 1]} of record {where[worst, 0]} shows {slots[worst]} "
            f"pictures, but a row has {pictures_per_row} picture slots; raise pictures_per_row."
        )
    return where, tokens, slots


def _best_fit(
    tokens: list[int], slots: list[int], row_length: int, pictures_per_row: int
) -> list[int]:
    """The row of each dialogue: the open one where the fewest tokens stay free, else a new one.

    Rows with the same free tokens and slots are interchangeable, so only which (slots, tokens)
    pairs are open is searched: one big integer for each number of free slots, whose bit r says
    that some row has r tokens free. Among equal rows the one with the fewest free slots is taken,
    so that text-only dialogues leave picture slots to the others.
    """
    open_bits = [0] * (pictures_per_row + 1)
    open_rows: dict[tuple[int, int], list[int]] = {}
    rows = 0
    chosen = []
    for need, pictures in progress(
        zip(tokens, slots, strict=True), "packing", total=len(tokens), unit="dialogue"
    ):
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
    return chosen


def make_packed_plan(
    lengths: Sizes, pictures: Sizes, row_length: int, pictures_per_row: int, seed: int
) -> Int32[np.ndarray, "R S 2"]:
    """R rows of up to S dialogues as (record, dialogue), padded with -1, in shuffled order.

    Args:
      lengths: for each record, the tokens of each dialogue; longer ones count as `row_length`,
        one of 0 tokens is left out.
      pictures: likewise, the pictures of each dialogue.
      row_length: T, most tokens in a row.
      pictures_per_row: M, most pictures in a row.
      seed: decides which of equally long dialogues meet, and the order of the rows.

    Raises UserError where a dialogue shows more than M pictures, or nothing is to be planned.
    """
    where, tokens, slots = _flatten(lengths, pictures, row_length, pictures_per_row)
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(where))
    # Picture slots run out before tokens where rows are long; text alone then fills what is left.
    # Longest first regardless of pictures took up to a tenth more rows.
    order = order[np.lexsort((-tokens[order], -slots[order]))]
    row = np.array(
        _best_fit(tokens[order].tolist(), slots[order].tolist(), row_length, pictures_per_row)
    )
    samples = np.bincount(row)
    by_row = np.argsort(row, kind="stable")
    place = np.arange(len(row)) - np.repeat(np.cumsum(samples) - samples, samples)
    rows = np.full((len(samples), samples.max(), 2), -1, np.int32)
    rows[row[by_row], place] = where[order[by_row]]
    return rng.permutation(rows)


def make_padded_plan(
    lengths: Sizes, pictures: Sizes, row_length: int, pictures_per_row: int, seed: int
) -> Int32[np.ndarray, "R 1 2"]:
    """One dialogue a row, in shuffled order; arguments and errors as for `make_packed_plan`."""
    where, _, _ = _flatten(lengths, pictures, row_length, pictures_per_row)
    return np.random.default_rng([seed, 0]).permutation(where)[:, None]
