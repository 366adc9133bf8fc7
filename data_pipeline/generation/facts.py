"""What may be said of a scene without being wrong: things, names that pick them out, relations.

Visual Genome lists the same object several times and leaves others out. So a count or an absence is
stated only where the annotations settle it, and a thing is called "the ..." only where no other
thing could be meant.
"""

import dataclasses
import re
from collections.abc import Sequence
from functools import cached_property

from data_pipeline.annotations.scene import Scene, SceneObject
from data_pipeline.common.boxes import NormalBox, intersection_over_union, normalise_box
from data_pipeline.generation.wording import (
    COLORS,
    SIZES,
    doing,
    head,
    is_person,
    is_plain_name,
    is_plural,
    is_state,
    place,
    plural,
    spelling,
)

CLEAR_MARGIN = 0.1
CLEARLY_LARGER = 1.5
SAME_OBJECT_OVERLAP = 0.5
MOST_COUNTED = 12

_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "center", "right")


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object. `color` and `size` are None where the annotations give none or several."""

    object_id: int
    name: str
    color: str | None
    size: str | None
    states: tuple[str, ...]
    box: NormalBox

    @property
    def label(self) -> str:
        """The name with the color, if known: it describes, but may fit other things too."""
        return f"{self.color} {self.name}" if self.color else self.name

    @property
    def full_label(self) -> str:
        return f"{self.size} {self.label}" if self.size else self.label

    @property
    def center(self) -> tuple[float, float]:
        return (self.box.x1 + self.box.x2) / 2, (self.box.y1 + self.box.y2) / 2

    @property
    def area(self) -> float:
        return (self.box.x2 - self.box.x1) * (self.box.y2 - self.box.y1)

    @property
    def cell(self) -> str:
        """Where its center lies, by thirds of the picture: "top left", "center", "middle right"."""
        row, column = self.third
        name = f"{_ROWS[row]} {_COLUMNS[column]}"
        return "center" if name == "middle center" else name

    @property
    def third(self) -> tuple[int, int]:
        """(row, column) of its center, by thirds of the picture."""
        x, y = self.center
        return min(int(y * 3), 2), min(int(x * 3), 2)

    @property
    def placeable(self) -> bool:
        """Whether its center says where it is: it isn't so large that it is everywhere."""
        return self.area <= 0.35


@dataclasses.dataclass(frozen=True)
class Fact:
    """A relation: `subject` is `words` `target` ("on", "wearing"); `action` tells a doing from a
    place."""

    subject: Thing
    words: str
    target: Thing
    action: bool


class Facts:
    """The checked facts of one scene."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.things, self._merged = _merge(scene)

    @cached_property
    def exhaustive(self) -> bool:
        """Whether the annotations tell about every object: few, all colored, none told twice."""
        return 0 < len(self.things) == len(self.scene.objects) <= MOST_COUNTED and all(
            thing.color and not is_plural(thing.name) for thing in self.things
        )

    @cached_property
    def phrases(self) -> dict[int, str]:
        """Object id -> words that fit this thing alone ("red circle"); no entry where none do."""
        return self._name_all((("color",), ("color", "size"), ("size",)))

    @cached_property
    def colorless_phrases(self) -> dict[int, str]:
        """As `phrases`, for questions about the color."""
        return self._name_all(((), ("size",)))

    @cached_property
    def named(self) -> list[Thing]:
        return [thing for thing in self.things if thing.object_id in self.phrases]

    @cached_property
    def facts(self) -> list[Fact]:
        """The relations between things whose predicate the teacher can word."""
        things = {thing.object_id: thing for thing in self.things}
        found = []
        for relation in self.scene.relations:
            subject = things.get(self._merged.get(relation.subject_id, -1))
            target = things.get(self._merged.get(relation.object_id, -1))
            if subject is None or target is None or subject is target:
                continue
            action, where = doing(relation.predicate), place(relation.predicate)
            words = action or where
            if words is not None:
                found.append(Fact(subject, words, target, action is not None))
        return list(dict.fromkeys(found))

    @cached_property
    def countable(self) -> dict[str, int]:
        """Name -> how many there are, for the names that nothing else could go by."""
        families: dict[str, list[Thing]] = {}
        for thing in self.things:
            families.setdefault(head(thing.name), []).append(thing)
        counts = {}
        for family in families.values():
            name = family[0].name
            apart = all(
                intersection_over_union(one.box, other.box) < 0.1
                for index, one in enumerate(family)
                for other in family[:index]
            )
            alike = all(thing.name == name for thing in family) and not is_plural(name)
            alike = alike and not self._told_as_many(name)
            if alike and apart and len(family) <= MOST_COUNTED:
                counts[name] = len(family)
        return counts

    @cached_property
    def color_counts(self) -> dict[str, int]:
        """Color -> how many things have it; empty unless every thing's color is known."""
        counts: dict[str, int] = {}
        for thing in self.things if self.exhaustive else ():
            if thing.color is not None:
                counts[thing.color] = counts.get(thing.color, 0) + 1
        return counts

    def _name_all(self, choices: Sequence[tuple[str, ...]]) -> dict[int, str]:
        families: dict[str, list[Thing]] = {}
        for thing in self.things:
            families.setdefault(head(thing.name), []).append(thing)
        return {
            thing.object_id: phrase
            for family in families.values()
            for thing in family
            if (phrase := _phrase(thing, family, choices)) is not None
            and not self._told_as_many(thing.name)
        }

    @cached_property
    def _told_words(self) -> frozenset[str]:
        texts = [*self.scene.captions, *(region.phrase for region in self.scene.regions)]
        return frozenset(re.findall(r"[a-z-]+", " ".join(texts).lower()))

    def _told_as_many(self, name: str) -> bool:
        """Whether a text speaks of several ("trees") where objects name only some of them."""
        several = not is_plural(name) and plural(name.rsplit(" ", 1)[-1]) in self._told_words
        return several and not self.exhaustive


def _phrase(
    thing: Thing, family: Sequence[Thing], choices: Sequence[tuple[str, ...]]
) -> str | None:
    others = [other for other in family if other is not thing]
    for traits in choices:
        own = [getattr(thing, trait) for trait in traits]
        if None in own:
            continue
        if all(_differs(thing, other, traits) for other in others):
            adjectives = [getattr(thing, trait) for trait in ("size", "color") if trait in traits]
            return " ".join([*adjectives, thing.name])
    return thing.name if not others else None


def _differs(thing: Thing, other: Thing, traits: Sequence[str]) -> bool:
    return any(getattr(other, trait) not in (None, getattr(thing, trait)) for trait in traits)


def _merge(scene: Scene) -> tuple[list[Thing], dict[int, int]]:
    """The scene's things, twice-told ones once, and each object id's representative."""
    things: list[Thing] = []
    sources: list[list[SceneObject]] = []
    merged: dict[int, int] = {}
    for item in scene.objects:
        name = " ".join(item.name.lower().split())
        box = normalise_box(item.box, scene.width, scene.height)
        if not is_plain_name(name) or box.x1 >= box.x2 or box.y1 >= box.y2:
            continue
        for index, thing in enumerate(things):
            if head(thing.name) == head(name) and (
                intersection_over_union(thing.box, box) > SAME_OBJECT_OVERLAP
            ):
                sources[index].append(item)
                merged[item.object_id] = thing.object_id
                things[index] = _thing(thing.name, thing.box, sources[index])
                break
        else:
            things.append(_thing(name, box, [item]))
            sources.append([item])
            merged[item.object_id] = item.object_id
    return things, merged


def _thing(name: str, box: NormalBox, sources: Sequence[SceneObject]) -> Thing:
    words = list(dict.fromkeys(spelling(word) for item in sources for word in item.attributes))
    colors = [] if is_person(name) else [word for word in words if word in COLORS]
    sizes = [word for word in words if word in SIZES]
    return Thing(
        object_id=sources[0].object_id,
        name=name,
        color=colors[0] if len(colors) == 1 else None,
        size=sizes[0] if len(sizes) == 1 else None,
        states=tuple(word for word in words if word not in SIZES and is_state(word)),
        box=box,
    )


def side(one: Thing, other: Thing) -> str | None:
    """ "left" or "right" where `one` clearly lies there of `other`, else None."""
    return _clear_order(one.center[0], other.center[0], one.box[0::2], other.box[0::2], _SIDES)


def level(one: Thing, other: Thing) -> str | None:
    """ "above" or "below" where `one` clearly lies there of `other`, else None."""
    return _clear_order(one.center[1], other.center[1], one.box[1::2], other.box[1::2], _LEVELS)


_SIDES = ("left", "right")
_LEVELS = ("above", "below")


def _clear_order(
    here: float,
    there: float,
    here_span: tuple[float, ...],
    there_span: tuple[float, ...],
    words: tuple[str, str],
) -> str | None:
    # Each center must lie outside the other's span: "left of" then holds however one looks at it.
    before = here < there_span[0] and here_span[1] < there
    after = here > there_span[1] and here_span[0] > there
    if abs(here - there) < CLEAR_MARGIN or not (before or after):
        return None
    return words[0] if before else words[1]


def direction(one: Thing, other: Thing) -> str | None:
    """ "to the left of", "above", "to the left of and above", or None where none is clear."""
    horizontal, vertical = side(one, other), level(one, other)
    parts = [f"to the {horizontal} of"] if horizontal else []
    parts += [vertical] if vertical else []
    return " and ".join(parts) or None
