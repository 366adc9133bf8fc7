"""Packed rows: what may look at what, and that nothing else leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.models.attention import cache_mask, packed_mask
from svit_jax.models.svit import Compute, splice

FLOAT32 = Compute("float32")
SEGMENTS = np.array([[1] * 12 + [2] * 11 + [3] * 4 + [0] * 3], np.int32)


def test_packed_mask_is_same_segment_and_not_ahead():
    segments = np.array([[1, 1, 2, 2, 2, 0, 0], [3, 1, 1, 1, 2, 2, 0]], np.int32)
    mask = np.asarray(packed_mask(jnp.asarray(segments)))
    for b in range(2):
        for t in range(7):
            for s in range(7):
                assert mask[b, t, s] == (segments[b, t] == segments[b, s] and s <= t)


def test_every_query_may_look_at_something():
    """A row of the mask without a True would make a softmax of nothing: NaN."""
    assert np.asarray(packed_mask(jnp.asarray(SEGMENTS))).any(axis=-1).all()


def test_cache_mask_is_slots_up_to_the_position():
    positions = np.array([[0, 3], [5, 1]], np.int32)
    expected = [[[s <= p for s in range(6)] for p in row] for row in positions.tolist()]
    np.testing.assert_array_equal(cache_mask(jnp.asarray(positions), 6), expected)


def test_splice_takes_the_named_patch():
    rng = np.random.default_rng(0)
    text = rng.standard_normal((2, 6, 4)).astype(np.float32)
    features = rng.standard_normal((2, 5, 4)).astype(np.float32)
    index = np.array([[-1, 4, 0, -1, -1, 2], [3, 3, -1, 1, -1, -1]], np.int32)
    expected = text.copy()
    for b in range(2):
        for t in range(6):
            if index[b, t] != -1:
                expected[b, t] = features[b, index[b, t]]
    np.testing.assert_array_equal(splice(*map(jnp.asarray, (text, features, index))), expected)


@pytest.fixture(scope="module")
def hidden(small_model):
    return jax.jit(lambda *a: small_model.hidden(*a, FLOAT32))


@pytest.fixture
def row() -> dict[str, np.ndarray]:
    """Segments 1 and 2 with a picture each, 3 of text alone, then padding."""
    rng = np.random.default_rng(7)
    length = SEGMENTS.shape[1]
    index = np.full((1, length), -1, np.int32)
    index[0, 2:11], index[0, 13:22] = np.arange(9), np.arange(9, 18)
    starts = [0, 12, 23, 27]
    counts = np.diff([*starts, length])
    return {
        "tokens": rng.integers(3, 37, (1, length)).astype(np.int32),
        "segment_ids": SEGMENTS,
        "positions": np.concatenate([np.arange(n) for n in counts])[None].astype(np.int32),
        "images": rng.integers(0, 256, (1, 2, 12, 12, 3)).astype(np.uint8),
        "vision_index": index,
    }


@pytest.mark.parametrize("segment, picture", [(1, 0), (2, 1), (3, 0)])
def test_packed_segments_equal_separate_ones(hidden, row, segment, picture):
    """A segment alone, put at the start of a row of its own, gets the same hidden states."""
    here = SEGMENTS[0] == segment
    count = int(here.sum())
    alone = {name: np.zeros_like(value) for name, value in row.items()}
    for name in ("tokens", "segment_ids", "positions"):
        alone[name][0, :count] = row[name][0, here]
    index = row["vision_index"][0, here]
    alone["vision_index"][:] = -1
    alone["vision_index"][0, :count] = np.where(index < 0, -1, index % 9)
    alone["images"][0, 0] = row["images"][0, picture]
    together, apart = hidden(*row.values())[0, here], hidden(*alone.values())[0, :count]
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


def test_other_segments_and_padding_never_leak(hidden, row):
    before = np.asarray(hidden(*row.values()))
    changed = {name: value.copy() for name, value in row.items()}
    others = SEGMENTS != 2
    changed["tokens"][others] = (changed["tokens"][others] + 5) % 37
    changed["images"][0, 0] = 255 - changed["images"][0, 0]
    after = np.asarray(hidden(*changed.values()))
    np.testing.assert_array_equal(after[:, ~others[0]], before[:, ~others[0]])
    assert np.abs(after - before)[others].min(axis=-1).max() > 0
    assert np.isfinite(after).all()


def test_no_token_sees_ahead(hidden, row):
    before = np.asarray(hidden(*row.values()))
    changed = {name: value.copy() for name, value in row.items()}
    changed["tokens"][0, 11] = (changed["tokens"][0, 11] + 1) % 37
    after = np.asarray(hidden(*changed.values()))
    np.testing.assert_array_equal(after[0, :11], before[0, :11])
    assert not np.array_equal(after[0, 11], before[0, 11])


def test_rows_without_picture_slots(small_model, row):
    tokens, none = jnp.asarray(row["tokens"]), jnp.zeros((1, 0, 12, 12, 3), jnp.uint8)
    x = small_model.embed(tokens, none, jnp.full_like(tokens, -1), FLOAT32)
    words = small_model.decoder.embedding[...]
    np.testing.assert_array_equal(x, np.asarray(words)[row["tokens"]])
