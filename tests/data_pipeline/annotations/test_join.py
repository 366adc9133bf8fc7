"""The join against a dictionary; what waits is compressed and comes out the same."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.annotations.join import join_by_image

ids = st.lists(st.integers(0, 40), unique=True, max_size=40)


@given(st.lists(ids, min_size=1, max_size=4))
def test_every_part_comes_once_and_whole(orders):
    streams = [iter([(k, [place, k]) for k in order]) for place, order in enumerate(orders)]
    joined = list(join_by_image(streams))
    assert len(joined) == len(dict(joined))
    assert dict(joined) == {
        k: [[place, k] if k in order else None for place, order in enumerate(orders)]
        for k in set().union(*orders)
    }


@pytest.mark.parametrize("reverse", [False, True])
def test_memory_of_files_in_opposite_orders(reverse):
    pictures, size = 2000, 20_000

    def rows(order):
        for k in order:
            yield k, {"id": k, "text": f"{k} " * (size // 5)}

    order = range(pictures)
    tracemalloc.start()
    seen = 0
    for image_id, parts in join_by_image([rows(order), rows(order[::-1] if reverse else order)]):
        assert all(part["id"] == image_id for part in parts)
        seen += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == pictures
    assert peak < (0.5 if reverse else 0.01) * pictures * size
