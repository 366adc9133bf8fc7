"""The padded plan: one dialogue a row, in the batches that the reference's sampler makes.

LLaVA's stage 2 draws batches of one modality, and deals each to its devices so that they hold
about the same number of words; its stage 1 draws at random.
"""

import heapq
from collections.abc import Callable

import numpy as np
from jaxtyping import Int32, Int64

from data_pipeline.loading.packing import Sizes, plan_columns, planned_numbers

Permute = Callable[[int], Int64[np.ndarray, "n"]]
"""n -> a permutation of 0..n - 1."""

BUCKETS = (3 / 8, 1 / 2, 3 / 4, 1)


def bucket_lengths(row_length: int) -> tuple[int, ...]:
    """The lengths that a padded plan's batches may have: 768, 1024, 1536 and 2048 of 2048. Few, for
    the step is compiled for each."""
    if row_length % 8:
        return (row_length,)
    return tuple(int(row_length * share) for share in BUCKETS)


def _deal(
    batch: Int64[np.ndarray, "b"], lengths: Int64[np.ndarray, "n"], devices: int
) -> list[int]:
    """The batch, longest first, in `devices` shares of equal numbers: each dialogue goes to the
    share that is shortest and not full."""
    longest_first = batch[np.argsort(-lengths[batch], kind="stable")].tolist()
    if len(batch) % devices:
        return [index for device in range(devices) for index in longest_first[device::devices]]
    full = len(batch) // devices
    shares: list[list[int]] = [[] for _ in range(devices)]
    open_shares = [(0, device) for device in range(devices)]
    for index in longest_first:
        held, device = heapq.heappop(open_shares)
        shares[device].append(index)
        if len(shares[device]) < full:
            heapq.heappush(open_shares, (held + int(lengths[index]), device))
    return [index for share in shares for index in share]


def _grouped(
    lengths: Int64[np.ndarray, "n"], batch_size: int, devices: int, permute: Permute
) -> list[list[int]]:
    order = permute(len(lengths))
    starts = range(0, len(order), batch_size)
    return [_deal(order[start : start + batch_size], lengths, devices) for start in starts]


def modality_length_order(
    lengths: Int64[np.ndarray, "n"], batch_size: int, devices: int, permute: Permute
) -> Int64[np.ndarray, "n"]:
    """The order in which the reference's sampler (group_by_modality_length) gives n samples.

    Args:
      lengths: words over all turns, negative for a sample without a picture; none may be 0.
      batch_size: of the global batch.
      devices: how many the batch is cut for, gradient accumulation counted in.
      permute: called for the samples with a picture, for those without, and for the whole batches,
        in this order; once alone where all samples have one modality.
    """
    parts = [np.flatnonzero(lengths > 0), np.flatnonzero(lengths < 0)]
    if not all(map(len, parts)):
        batches = _grouped(lengths, batch_size, devices, permute)
        return np.array([index for batch in batches for index in batch], np.int64)
    whole: list[Int64[np.ndarray, b]] = []
    rest = []
    for part in parts:
        *first, last = _grouped(np.abs(lengths[part]), batch_size, devices, permute)
        whole += [part[batch] for batch in first]
        rest.append(part[last])
    # The last batch of each modality, cut short or not, ends the epoch in the dataset's order.
    shuffled = [whole[place] for place in permute(len(whole))]
    return np.concatenate([*shuffled, np.sort(np.concatenate(rest))])


def make_padded_plan(
    sizes: Sizes,
    row_length: int,
    pictures_per_row: int,
    seed: int,
    batch_size: int,
    devices: int,
) -> Int32[np.ndarray, "R 1 4"]:
    """One dialogue a row, whole batches of them: what the last batch lacks are rows of nothing.

    devices: for how many the reference's sampler groups; 0 gives a plain random order. The other
    arguments and errors are those of `make_packed_plan`.
    """
    numbers = planned_numbers(sizes, pictures_per_row)
    permute = np.random.default_rng([seed, 0]).permutation
    if devices:
        lengths = sizes.words[numbers].astype(np.int64)
        numbers = numbers[modality_length_order(lengths, batch_size, devices, permute)]
    else:
        numbers = permute(numbers)
    rows = np.full((-(-len(numbers) // batch_size) * batch_size, 1, 4), -1, np.int32)
    rows[: len(numbers), 0] = plan_columns(sizes, numbers, row_length)
    return rows
