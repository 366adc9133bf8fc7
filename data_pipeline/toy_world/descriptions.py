"""What people would have written about a toy scene: region phrases, relations, captions."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable

from data_pipeline.annotations.scene import PixelBox
from data_pipeline.toy_world.world import ToyObject, ToyScene

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")

_PHRASES = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}
_RELATIONS_PER_SCENE = 3


@dataclasses.dataclass(frozen=True)
class ToyRelation:
    """`predicate` is true of the two by their cells: they differ on its axis."""

    subject: ToyObject
    predicate: str
    target: ToyObject

    @property
    def phrase(self) -> str:
        """As in "a red circle to the left of a blue square"."""
        return f"{a(self.subject.name)} {_PHRASES[self.predicate]} {a(self.target.name)}"

    @property
    def box(self) -> PixelBox:
        one, other = self.subject.box, self.target.box
        return PixelBox(
            min(one.x1, other.x1),
            min(one.y1, other.y1),
            max(one.x2, other.x2),
            max(one.y2, other.y2),
        )


def a(noun: str) -> str:
    """The noun with its article: "an orange ring"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def count_of(number: int, noun: str) -> str:
    """As in "two crosses"."""
    return f"{NUMBER_WORDS[number]} {noun if number == 1 else plural(noun)}"


def object_phrase(thing: ToyObject) -> str:
    """As in "a large red circle in the top left"."""
    return f"{a(f'{thing.size} {thing.name}')} {thing.place}"


def relations_of(scene: ToyScene, seed: int) -> list[ToyRelation]:
    """Up to three true relations, each between another two objects."""
    rng = random.Random(f"{seed}/relations/{scene.image_id}")
    couples = [(p, q) for k, p in enumerate(scene.objects) for q in scene.objects[:k]]
    chosen = rng.sample(couples, min(_RELATIONS_PER_SCENE, len(couples)))
    return [_relate(rng, *rng.sample(couple, 2)) for couple in chosen]


def _relate(rng: random.Random, subject: ToyObject, target: ToyObject) -> ToyRelation:
    true = []
    if subject.column != target.column:
        true.append("left of" if subject.column < target.column else "right of")
    if subject.row != target.row:
        true.append("above" if subject.row < target.row else "below")
    return ToyRelation(subject, rng.choice(true), target)


def captions_of(scene: ToyScene, seed: int) -> tuple[str, ...]:
    """Five captions, each with another view of the scene, in a random order."""
    rng = random.Random(f"{seed}/captions/{scene.image_id}")
    things = rng.sample(scene.objects, len(scene.objects))
    related = f", with {_relate(rng, *rng.sample(things, 2)).phrase}" if len(things) > 1 else ""
    colours = Counter(f"{thing.colour} object" for thing in things)
    shapes = Counter(thing.shape for thing in things)
    are = "is" if len(things) == 1 else "are"
    captions = [
        f"There {are} {count_of(len(things), 'object')}: {_listing(a(t.name) for t in things)}.",
        f"{_listing(a(f'{t.size} {t.name}') for t in things)} on a dark background.",
        f"{_listing(f'{a(t.name)} {t.place}' for t in things)}.",
        f"A picture of {_listing(count_of(n, noun) for noun, n in colours.items())}.",
        f"{_listing(count_of(n, noun) for noun, n in shapes.items())}{related}.",
    ]
    rng.shuffle(captions)
    return tuple(text[0].upper() + text[1:] for text in captions)


def _listing(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
