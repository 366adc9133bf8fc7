"""Questions about where things are."""

import random
from collections.abc import Callable

from data_pipeline.generation.ask import Pair, View, capital, coin
from data_pipeline.generation.facts import CLEAR_MARGIN, Thing, direction, level, side
from data_pipeline.generation.wording import be

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_BORDERS: dict[str, Callable[[Thing], float]] = {
    "furthest to the left": lambda thing: thing.center[0],
    "furthest to the right": lambda thing: -thing.center[0],
    "highest": lambda thing: thing.center[1],
    "lowest": lambda thing: -thing.center[1],
}


def where_is(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    if thing is None or not thing.placeable:
        return None
    name = view.call(thing)
    return (
        f"Where {be(thing.name)} {name}?",
        f"{capital(name)} {be(thing.name)} in the {thing.cell} of the image.",
    )


def find(view: View, rng: random.Random) -> Pair | None:
    """A thing named in plain words, to be found: the answer alone points."""
    words = View(view.facts)
    thing = words.one(rng)
    if thing is None or not thing.placeable:
        return None
    return (
        f"Where {be(thing.name)} {words.call(thing)}?",
        f"{capital(view.call(thing))} {be(thing.name)} in the {thing.cell} of the image.",
    )


def what_is_there(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng) if view.facts.exhaustive else None
    if thing is None:
        return None
    if sum(other.cell == thing.cell for other in view.facts.things) > 1:
        return None
    place = f"in the {thing.cell} of the image"
    return (
        f"What is {place}?",
        f"There {be(thing.name)} {view.call_a(thing)} {place}.",
    )


def where_relative(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    where = direction(*pair) if pair else None
    if pair is None or where is None:
        return None
    one, other = pair
    return (
        f"Where {be(one.name)} {view.call(one)} relative to {view.call(other)}?",
        f"{capital(view.call(one))} {be(one.name)} {where} {view.call(other)}.",
    )


def is_it_there(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    one, other = pair
    found = side(one, other) if coin(rng) else level(one, other)
    if found is None:
        return None
    asked = found if coin(rng) else _OPPOSITE[found]
    answer = f"{view.call(one)} {be(one.name)} {_beside(found)} {view.call(other)}."
    return (
        f"{capital(be(one.name))} {view.call(one)} {_beside(asked)} {view.call(other)}?",
        f"{'Yes' if asked == found else 'No'}, {answer}",
    )


def which_of_two(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    found = side(*pair) if coin(rng) else level(*pair)
    if found is None:
        return None
    names = [view.call(thing) for thing in pair]
    more = {"above": "higher", "below": "lower"}.get(found, f"further to the {found}")
    shown = names if coin(rng) else names[::-1]
    return (
        f"Which is {more} in the image, {shown[0]} or {shown[1]}?",
        f"{capital(names[0])} {be(pair[0].name)} {more} than {names[1]}.",
    )


def which_is_furthest(view: View, rng: random.Random) -> Pair | None:
    words = rng.choice(list(_BORDERS))
    winner = extreme(view, _BORDERS[words])
    if winner is None:
        return None
    return f"Which object is {words} in the image?", f"{capital(view.call(winner))} is {words}."


def extreme(view: View, measure: Callable[[Thing], float]) -> Thing | None:
    """The thing with the clearly least measure, where all things are known and it can be named."""
    if not view.facts.exhaustive or len(view.facts.things) < 2:
        return None
    first, second = sorted(view.facts.things, key=measure)[:2]
    if measure(second) - measure(first) < CLEAR_MARGIN / 2 or first not in view.things:
        return None
    return first


def which_is_nearest(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    nearest = nearest_to(view, thing) if thing else None
    if thing is None or nearest is None:
        return None
    return (
        f"Which object is closest to {view.call(thing)}?",
        f"{capital(view.call(nearest))} is closest to {view.call(thing)}.",
    )


def nearest_to(view: View, thing: Thing) -> Thing | None:
    """The thing that is clearly closest to `thing`, center to center in pixels."""
    others = [other for other in view.facts.things if other is not thing]
    if not view.facts.exhaustive or len(others) < 2:
        return None
    width, height = view.facts.scene.width, view.facts.scene.height

    def distance(other: Thing) -> float:
        (x1, y1), (x2, y2) = thing.center, other.center
        return ((x1 - x2) * width) ** 2 + ((y1 - y2) * height) ** 2

    first, second = sorted(others, key=distance)[:2]
    # Squared: the second one is at least a quarter further away.
    return first if first in view.things and distance(second) > 1.56 * distance(first) else None


def what_lies_there(view: View, rng: random.Random) -> Pair | None:
    """The only thing that lies on one side of another."""
    thing = view.one(rng) if view.facts.exhaustive else None
    if thing is None:
        return None
    relation = side if coin(rng) else level
    wanted = rng.choice(("left", "right") if relation is side else ("above", "below"))
    found = {
        other.object_id: relation(other, thing) for other in view.facts.things if other is not thing
    }
    hits = [other for other in view.things if found.get(other.object_id) == wanted]
    # An unclear one might count as a second, and so might one without a name.
    if len(hits) != 1 or None in found.values() or list(found.values()).count(wanted) != 1:
        return None
    return (
        f"Which object is {_beside(wanted)} {view.call(thing)}?",
        f"{capital(view.call(hits[0]))} is {_beside(wanted)} {view.call(thing)}.",
    )


def _beside(where: str) -> str:
    return f"to the {where} of" if where in ("left", "right") else where


PLACE_MAKERS = (
    where_is,
    what_is_there,
    where_relative,
    is_it_there,
    which_of_two,
    which_is_furthest,
    which_is_nearest,
    what_lies_there,
)
