"""Merging against a brute-force reading of its rule."""

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.annotations.duplicates import merge_duplicates
from data_pipeline.annotations.scene import PixelBox, Relation, Scene, SceneObject


def thing(object_id, name, box, *attributes):
    return SceneObject(object_id, name, PixelBox(*box), attributes)


def pixels(box):
    return {(x, y) for x in range(box.x1, box.x2) for y in range(box.y1, box.y2)}


def share(a, b):
    return len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))


def test_the_first_takes_attributes_and_relations():
    man, again = thing(1, "man", (0, 0, 10, 10), "tall"), thing(2, " Man", (0, 0, 10, 8), "old")
    woman, far = thing(3, "woman", (0, 0, 10, 10)), thing(4, "man", (20, 0, 30, 10))
    scene = Scene(
        *(1, "1.jpg", 40, 40),
        objects=(man, again, woman, far),
        relations=(
            Relation(2, "near", 3),
            Relation(1, "near", 3),
            Relation(1, "same as", 2),
            Relation(4, "sees", 4),
        ),
    )
    merged = merge_duplicates(scene, 0.8)
    assert merged.objects == (thing(1, "man", (0, 0, 10, 10), "tall", "old"), woman, far)
    assert merged.relations == (Relation(1, "near", 3), Relation(4, "sees", 4))
    assert merge_duplicates(scene, 0.81).objects == scene.objects


sides = st.tuples(st.integers(0, 8), st.integers(1, 5))
boxes = st.builds(lambda x, y: PixelBox(x[0], y[0], sum(x), sum(y)), sides, sides)
named = st.lists(st.tuples(st.sampled_from("ab"), boxes), max_size=12)


@given(named, st.sampled_from([0.2, 0.45, 0.7, 1.0]))
def test_kept_objects_are_those_that_no_earlier_kept_one_covers(rows, overlap):
    objects = tuple(SceneObject(k, name, box) for k, (name, box) in enumerate(rows))
    expected: list[SceneObject] = []
    for item in objects:
        if all(item.name != k.name or share(item.box, k.box) < overlap - 1e-9 for k in expected):
            expected.append(item)
    scene = Scene(1, "1.jpg", 20, 15, objects=objects)
    assert merge_duplicates(scene, overlap - 1e-9).objects == tuple(expected)
