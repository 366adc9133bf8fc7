"""How a question maker sees a scene, and how a set of questions is drawn from many makers."""

import dataclasses
import random
from collections.abc import Callable, Sequence

from data_pipeline.common.boxes import format_box
from data_pipeline.generation.facts import Facts, Thing
from data_pipeline.generation.wording import a

ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class View:
    """The things that questions may name. With `boxed`, a mention carries `<st>`, `<ed>` and its
    box, so that any thing may be named; without, only those that words pick out. What is in
    `unasked` ("red star") is never asked about where the answer would be no."""

    facts: Facts
    boxed: bool = False
    unasked: frozenset[str] = frozenset()

    @property
    def things(self) -> list[Thing]:
        return self.facts.things if self.boxed else self.facts.named

    def call(self, thing: Thing) -> str:
        """ "the red circle", or "the <st>red circle<ed> [0.1, 0.2, 0.3, 0.4]"."""
        return f"the {self.mark(self.facts.phrases.get(thing.object_id, thing.label), thing)}"

    def call_a(self, thing: Thing) -> str:
        """ "a red circle", with its box where mentions carry one."""
        return a(thing.label).removesuffix(thing.label) + self.mark(thing.label, thing)

    def colorless(self, thing: Thing) -> str | None:
        """As `call` without the color; None where the rest of the words fit other things too."""
        words = self.facts.colorless_phrases.get(thing.object_id)
        if words is None and self.boxed:
            words = thing.name
        return None if words is None else f"the {self.mark(words, thing)}"

    def mark(self, words: str, *things: Thing) -> str:
        if not self.boxed:
            return words
        return f"<st>{words}<ed> {', '.join(format_box(thing.box) for thing in things)}"

    def one(self, rng: random.Random) -> Thing | None:
        return rng.choice(self.things) if self.things else None

    def two(self, rng: random.Random) -> tuple[Thing, Thing] | None:
        """Two things whose names differ, in random order."""
        if len(self.things) < 2:
            return None
        first, second = rng.sample(self.things, 2)
        return None if self.call(first) == self.call(second) else (first, second)


Pair = tuple[str, str]
Maker = Callable[[View, random.Random], Pair | None]


def draw(
    makers: Sequence[Maker], view: View, rng: random.Random, count: int, asked: set[str]
) -> list[Pair]:
    """Up to `count` questions with answers, as many different makers as possible; none is in
    `asked`, which grows by them."""
    pairs: list[Pair] = []
    for _ in range(ROUNDS):
        for maker in rng.sample(makers, len(makers)):
            if len(pairs) == count:
                return pairs
            pair = maker(view, rng)
            if pair is not None and pair[0] not in asked:
                asked.add(pair[0])
                pairs.append(pair)
    return pairs


def coin(rng: random.Random) -> bool:
    return rng.random() < 0.5


def capital(text: str) -> str:
    """The text with a capital first letter; a leading mark is left alone."""
    return text[:1].upper() + text[1:]
