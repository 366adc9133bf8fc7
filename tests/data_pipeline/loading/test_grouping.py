"""The padded plan against the reference's sampler, and its batches' lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llava_sampler import reference_order
from mixture_lengths import mixture_lengths

from data_pipeline.common.errors import UserError
from data_pipeline.loading.grouping import (
    bucket_lengths,
    make_padded_plan,
    modality_length_order,
)
from data_pipeline.loading.packing import Sizes

lengths = st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=60)


def permutations(seed):
    return np.random.default_rng(seed).permutation


@settings(max_examples=150, deadline=None)
@given(lengths=lengths, per_device=st.integers(1, 4), devices=st.integers(1, 4), seed=st.integers())
def test_the_order_is_the_references(lengths, per_device, devices, seed):
    seed = abs(seed)
    expected = reference_order(
        lengths, per_device, devices, lambda n: permutations([seed, n])(n).tolist()
    )
    found = modality_length_order(
        np.array(lengths), per_device * devices, devices, lambda n: permutations([seed, n])(n)
    )
    assert found.tolist() == expected
    assert sorted(expected) == list(range(len(lengths)))


def test_the_mixtures_order_is_the_references():
    """8 devices of 16 samples, 2% of the mixture: batches of one modality but for the last."""
    words = mixture_lengths(0.02).words.astype(np.int64)
    expected = reference_order(words.tolist(), 16, 8, permutations(7))
    assert modality_length_order(words, 128, 8, permutations(7)).tolist() == expected


def small_sizes(n=21, seed=0):
    rng = np.random.default_rng(seed)
    pictures = (rng.random(n) < 0.7).astype(np.int32)
    words = rng.integers(1, 30, n).astype(np.int32)
    tokens = words * 2 + 10 * pictures
    return Sizes(np.ones(n, np.int32), tokens, pictures, np.where(pictures, words, -words))


def test_rows_are_the_references_order_in_whole_batches():
    sizes = small_sizes()
    rows = make_padded_plan(sizes, 64, 1, seed=5, batch_size=4, devices=2)
    rng = np.random.default_rng([5, 0])
    expected = reference_order(sizes.words.tolist(), 2, 2, rng.permutation)
    assert rows.shape == (24, 1, 4)
    assert rows[:21, 0, 0].tolist() == expected
    assert (rows[21:] == -1).all()
    np.testing.assert_array_equal(rows[:21, 0, 2], np.minimum(sizes.tokens[expected], 64))
    np.testing.assert_array_equal(rows[:21, 0, 3], sizes.pictures[expected])


def test_without_devices_the_order_is_random():
    sizes = small_sizes()
    rows = make_padded_plan(sizes, 64, 1, seed=5, batch_size=4, devices=0)[:21, 0, 0]
    assert rows.tolist() == np.random.default_rng([5, 0]).permutation(21).tolist()


def test_what_fits_in_no_row_is_named():
    with pytest.raises(UserError, match=r"dialogue 0 of record .* shows 1 pictures"):
        make_padded_plan(small_sizes(), 64, 0, seed=5, batch_size=4, devices=2)


def test_few_lengths():
    assert bucket_lengths(2048) == (768, 1024, 1536, 2048)
    assert bucket_lengths(100) == (100,)
