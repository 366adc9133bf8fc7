"""Short questions about toy scenes with their true answers, chosen so that guessing doesn't pay."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from data_pipeline.toy_world.descriptions import NUMBER_WORDS, plural
from data_pipeline.toy_world.world import (
    CELLS,
    COLOURS,
    HELD_OUT_PAIRS,
    SHAPES,
    Pair,
    ToyObject,
    ToyScene,
)

Kind = Literal["color", "shape", "count", "position", "size", "existence", "relation"]

OPEN_KINDS: tuple[Kind, ...] = ("color", "shape", "count", "position", "size")
YES_NO_KINDS: tuple[Kind, ...] = ("existence", "relation")
KINDS: tuple[Kind, ...] = OPEN_KINDS + YES_NO_KINDS

# Next to any other answer of its form: "How many crosses are there?" "0" stays rare.
_ANSWER_WEIGHTS = {("count", "0"): 0.15}
_ASKED_NUMBERS = (2, 3)


@dataclasses.dataclass(frozen=True)
class Question:
    """`form` tells the wordings of a kind apart. `about` holds the (colour, shape) of each single
    object asked for, present or not; `counted` those of a group, known by colour or shape alone."""

    kind: Kind
    form: str
    text: str
    answer: str
    about: tuple[Pair, ...] = ()
    counted: tuple[Pair, ...] = ()

    @property
    def novel(self) -> bool:
        """Whether it asks for a pair that no training scene shows."""
        return any(pair in HELD_OUT_PAIRS for pair in self.about)


def questions_about(scene: ToyScene) -> list[Question]:
    """Every question that the scene answers without doubt.

    Outside of novel scenes none asks for a held-out pair: the answer would always be "no", which is
    a lesson about the pair that training must not teach.
    """
    makers = (_color, _shape, _count, _position, _size, _existence, _number, _relation)
    return [question for maker in makers for question in maker(scene)]


class Balance:
    """Chooses questions so that, over all scenes, kinds, forms and answers come out even.

    Each choice takes what was taken least so far: the kind, then the form, then the answer, then
    the answer to this very question ("Is there a red circle?" is as often yes as no). Ties fall by
    the seed.
    """

    def __init__(self, seed: str):
        self._rng = random.Random(seed)
        self._kinds: Counter[Kind] = Counter()
        self._forms: Counter[tuple[Kind, str]] = Counter()
        self._answers: Counter[tuple[Kind, str, str]] = Counter()
        self._texts: Counter[tuple[str, str]] = Counter()

    def choose(
        self,
        scene: ToyScene,
        weights: Mapping[Kind, float],
        count: int,
        accept: Callable[[Question], bool] = lambda question: True,
    ) -> list[Question]:
        """Up to `count` different questions about the scene, in a random order.

        `weights` are the kinds' shares. In a novel scene the questions about its held-out pair
        come first.
        """
        by_kind: dict[Kind, list[Question]] = {kind: [] for kind in weights}
        for question in questions_about(scene):
            if question.kind in by_kind and accept(question):
                by_kind[question.kind].append(question)
        chosen: list[Question] = []
        while len(chosen) < count:
            kinds = [kind for kind, questions in by_kind.items() if questions]
            if not kinds:
                break
            kind = min(kinds, key=lambda k: (self._kinds[k] / weights[k], self._rng.random()))
            question = self.take(by_kind[kind])
            by_kind[kind].remove(question)
            chosen.append(question)
        self._rng.shuffle(chosen)
        return chosen

    def take(self, questions: list[Question]) -> Question:
        """The one of these (all of one kind) whose like was taken least; it now counts as taken."""
        candidates = [question for question in questions if question.novel] or questions
        best = min(candidates, key=self._taken)
        self._kinds[best.kind] += 1
        self._forms[best.kind, best.form] += 1
        self._answers[best.kind, best.form, best.answer] += 1
        self._texts[best.text, best.answer] += 1
        return best

    def _taken(self, question: Question) -> tuple[int, float, int, float]:
        kind, form, answer = question.kind, question.form, question.answer
        return (
            self._forms[kind, form],
            self._answers[kind, form, answer] / _ANSWER_WEIGHTS.get((kind, answer), 1.0),
            self._texts[question.text, answer],
            self._rng.random(),
        )


def _color(scene: ToyScene) -> Iterator[Question]:
    for thing in scene.objects:
        alike = [other for other in scene.objects if other.shape == thing.shape]
        noun = _unique_noun(thing, alike, thing.shape)
        if noun:
            text = f"What color is the {noun}?"
            yield Question("color", "noun", text, thing.colour, (thing.pair,))
        text = f"What color is the {thing.shape} {thing.place}?"
        yield Question("color", "place", text, thing.colour, (thing.pair,))


def _shape(scene: ToyScene) -> Iterator[Question]:
    for thing in scene.objects:
        alike = [other for other in scene.objects if other.colour == thing.colour]
        noun = _unique_noun(thing, alike, f"{thing.colour} object")
        if noun:
            text = f"What shape is the {noun}?"
            yield Question("shape", "noun", text, thing.shape, (thing.pair,))
        text = f"What shape is the object {thing.place}?"
        yield Question("shape", "place", text, thing.shape, (thing.pair,))


def _unique_noun(thing: ToyObject, alike: list[ToyObject], noun: str) -> str | None:
    """The noun, with the size before it where that is needed and is enough."""
    if len(alike) == 1:
        return noun
    if sum(other.size == thing.size for other in alike) == 1:
        return f"{thing.size} {noun}"
    return None


def _groups(scene: ToyScene) -> Iterator[tuple[str, str, tuple[Pair, ...]]]:
    """(form, noun, pairs of the objects that it fits) for every shape and every colour."""
    for shape in SHAPES:
        yield "shape", shape, tuple(o.pair for o in scene.objects if o.shape == shape)
    for colour in COLOURS:
        noun = f"{colour} object"
        yield "color", noun, tuple(o.pair for o in scene.objects if o.colour == colour)


def _count(scene: ToyScene) -> Iterator[Question]:
    yield Question("count", "all", "How many objects are there?", str(len(scene.objects)))
    for form, noun, pairs in _groups(scene):
        text = f"How many {plural(noun)} are there?"
        yield Question("count", form, text, str(len(pairs)), counted=pairs)


def _position(scene: ToyScene) -> Iterator[Question]:
    for thing in scene.objects:
        text = f"Where is the {thing.name}?"
        yield Question("position", "", text, CELLS[thing.cell], (thing.pair,))


def _size(scene: ToyScene) -> Iterator[Question]:
    for thing in scene.objects:
        text = f"What size is the {thing.name}?"
        yield Question("size", "", text, thing.size, (thing.pair,))


def _existence(scene: ToyScene) -> Iterator[Question]:
    """The absent ones are hard: the colour is there, and the shape, on different objects."""
    present = {thing.pair for thing in scene.objects}
    for colour in dict.fromkeys(thing.colour for thing in scene.objects):
        for shape in dict.fromkeys(thing.shape for thing in scene.objects):
            pair = (colour, shape)
            if pair in HELD_OUT_PAIRS and not scene.novel:
                continue
            article = "an" if colour == "orange" else "a"
            text = f"Is there {article} {colour} {shape} in the image?"
            yield Question("existence", "pair", text, "yes" if pair in present else "no", (pair,))


def _number(scene: ToyScene) -> Iterator[Question]:
    """Numbers that are right or off by one."""
    for _, noun, pairs in _groups(scene):
        for asked in _ASKED_NUMBERS:
            if pairs and abs(asked - len(pairs)) <= 1:
                text = f"Are there {NUMBER_WORDS[asked]} {plural(noun)} in the image?"
                answer = "yes" if asked == len(pairs) else "no"
                yield Question("existence", "number", text, answer, counted=pairs)


def _relation(scene: ToyScene) -> Iterator[Question]:
    for one in scene.objects:
        for other in scene.objects:
            about = (one.pair, other.pair)
            if one.column != other.column:
                text = f"Is the {one.name} to the left of the {other.name}?"
                answer = "yes" if one.column < other.column else "no"
                yield Question("relation", "left", text, answer, about)
            if one.row != other.row:
                text = f"Is the {one.name} above the {other.name}?"
                answer = "yes" if one.row < other.row else "no"
                yield Question("relation", "above", text, answer, about)
