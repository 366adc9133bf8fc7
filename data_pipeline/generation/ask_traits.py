"""Questions about what things are: names, colors, sizes, numbers, doings."""

import random
from collections.abc import Sequence

from data_pipeline.generation.ask import Pair, View, capital, coin
from data_pipeline.generation.facts import CLEARLY_LARGER, Thing
from data_pipeline.generation.wording import COLORS, SHAPES, a, be, count, joined, plural, sentence

COMMON_COLORS = COLORS[:8]


def what_is_shown(view: View, rng: random.Random) -> Pair | None:
    question = rng.choice(("What does the image show?", "What can be seen in the image?"))
    captions = view.facts.scene.captions
    if captions and coin(rng):
        return question, sentence(rng.choice(captions))
    if view.facts.exhaustive:
        return question, f"The image shows {joined([a(t.label) for t in view.facts.things])}."
    labels = list(dict.fromkeys(a(thing.label) for thing in view.facts.named))
    if len(labels) < 2:
        return None
    return question, f"The image shows {joined(rng.sample(labels, min(4, len(labels))))}."


def how_many(view: View, rng: random.Random) -> Pair | None:
    counts = sorted(view.facts.countable.items())
    if not counts:
        return None
    name, number = rng.choice(counts)
    return (
        f"How many {plural(name)} are there in the image?",
        f"There {_are(number)} {count(number, name)} in the image.",
    )


def how_many_objects(view: View, rng: random.Random) -> Pair | None:
    if not view.facts.exhaustive:
        return None
    number = len(view.facts.things)
    return (
        "How many objects are there in the image?",
        f"There {_are(number)} {count(number, 'object')} in the image.",
    )


def how_many_of_color(view: View, rng: random.Random) -> Pair | None:
    counts = sorted(view.facts.color_counts.items())
    if not counts:
        return None
    color, number = rng.choice(counts)
    return (
        f"How many {color} objects are there in the image?",
        f"There {_are(number)} {count(number, f'{color} object')} in the image.",
    )


def is_there(view: View, rng: random.Random) -> Pair | None:
    """Yes as often as no, where the scene settles the no; the no differs in the color or name."""
    if not view.facts.things:
        return None
    labels = {thing.label for thing in view.facts.things}
    if coin(rng):
        thing = rng.choice(view.facts.things)
        asked, be_word = a(thing.label), be(thing.name)
        return _existence(asked, be_word, True)
    if not view.facts.exhaustive:
        return None
    names = sorted({thing.name for thing in view.facts.things})
    if coin(rng) and set(names) <= set(SHAPES):
        names = list(SHAPES)
    colors = COMMON_COLORS if coin(rng) else tuple(sorted(view.facts.color_counts))
    label = f"{rng.choice(colors)} {rng.choice(names)}"
    if label in labels or label in view.unasked:
        return None
    return _existence(a(label), "is", False)


def _existence(asked: str, be_word: str, present: bool) -> Pair:
    question = f"{capital(be_word)} there {'any ' if be_word == 'are' else ''}{asked} in the image?"
    if present:
        return question, f"Yes, there {be_word} {asked} in the image."
    return question, f"No, there is no {asked.split(' ', 1)[1]} in the image."


def what_color(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    name = view.colorless(thing) if thing else None
    if thing is None or thing.color is None or name is None:
        return None
    return (
        f"What color {be(thing.name)} {name}?",
        f"{capital(name)} {be(thing.name)} {thing.color}.",
    )


def is_it_colored(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    name = view.colorless(thing) if thing else None
    if thing is None or thing.color is None or name is None:
        return None
    asked = thing.color if coin(rng) else rng.choice(COMMON_COLORS)
    if asked != thing.color and f"{asked} {thing.name}" in view.unasked:
        return None
    return (
        f"{capital(be(thing.name))} {name} {asked}?",
        f"{'Yes' if asked == thing.color else 'No'}, {name} {be(thing.name)} {thing.color}.",
    )


def what_has_color(view: View, rng: random.Random) -> Pair | None:
    single = [c for c, number in sorted(view.facts.color_counts.items()) if number == 1]
    if not single:
        return None
    color = rng.choice(single)
    thing = next(thing for thing in view.facts.things if thing.color == color)
    return (
        f"What is the {color} object in the image?",
        f"The {color} object is {a(thing.name).removesuffix(thing.name)}"
        f"{view.mark(thing.name, thing)}.",
    )


def same_color(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    one, other = pair
    names = [view.colorless(one), view.colorless(other)]
    if None in (one.color, other.color, *names) or names[0] == names[1]:
        return None
    question = f"Do {names[0]} and {names[1]} have the same color?"
    if one.color == other.color:
        return question, f"Yes, {names[0]} and {names[1]} are both {one.color}."
    return question, (
        f"No, {names[0]} {be(one.name)} {one.color} and {names[1]} {be(other.name)} {other.color}."
    )


def who_shares_color(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng) if view.facts.exhaustive else None
    if thing is None:
        return None
    others = [o for o in view.facts.things if o.color == thing.color and o is not thing]
    if not others or any(other not in view.things for other in others):
        return None
    verb = "has" if len(others) == 1 else "have"
    return (
        f"Which other objects have the same color as {view.call(thing)}?",
        f"{capital(joined([view.call(other) for other in others]))} {verb} the same color.",
    )


def which_of_name(view: View, rng: random.Random) -> Pair | None:
    """All things of one name, pointed at together; only makes sense where mentions carry boxes."""
    several = sorted(name for name, number in view.facts.countable.items() if number > 1)
    if not several or not view.boxed:
        return None
    name = rng.choice(several)
    things = [thing for thing in view.facts.things if thing.name == name]
    return (
        f"Where are the {plural(name)} in the image?",
        f"There are {len(things)} {view.mark(plural(name), *things)} in the image.",
    )


def what_size(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    if thing is None or thing.size not in ("large", "small"):
        return None
    name = view.call(thing)
    if thing.size in name:
        return None
    return (
        f"{capital(be(thing.name))} {name} large or small?",
        f"{capital(name)} {be(thing.name)} {thing.size}.",
    )


def which_is_larger(view: View, rng: random.Random) -> Pair | None:
    pair = larger_and_smaller(view, rng)
    if pair is None:
        return None
    names = [view.call(thing) for thing in pair]
    shown = names if coin(rng) else names[::-1]
    larger, smaller = names
    if coin(rng):
        answer = f"{capital(larger)} {be(pair[0].name)} larger than {smaller}."
        return f"Which is larger in the image, {shown[0]} or {shown[1]}?", answer
    answer = f"{capital(smaller)} {be(pair[1].name)} smaller than {larger}."
    return f"Which is smaller in the image, {shown[0]} or {shown[1]}?", answer


def larger_and_smaller(view: View, rng: random.Random) -> tuple[Thing, Thing] | None:
    pair = view.two(rng)
    if pair is None:
        return None
    one, other = pair
    if clearly_larger(other, one):
        return other, one
    return pair if clearly_larger(one, other) else None


def clearly_larger(one: Thing, other: Thing) -> bool:
    return one.area >= CLEARLY_LARGER * other.area


def more_of_which(view: View, rng: random.Random) -> Pair | None:
    counts = sorted(view.facts.countable.items())
    if len(counts) < 2:
        return None
    (name, number), (other, other_number) = rng.sample(counts, 2)
    question = f"Are there more {plural(name)} than {plural(other)} in the image?"
    numbers = f"{_are(number)} {count(number, name)} and {count(other_number, other)}"
    return question, f"{'Yes' if number > other_number else 'No'}, there {numbers}."


def what_relation(view: View, rng: random.Random) -> Pair | None:
    """What somebody does, or what is in a place, from the annotated relations."""
    fact = rng.choice(view.facts.facts) if view.facts.facts else None
    if fact is None or not _nameable(view, (fact.subject, fact.target)):
        return None
    subject, target = view.call(fact.subject), view.call(fact.target)
    answer = f"{capital(subject)} {be(fact.subject.name)} {fact.words} {target}."
    if fact.action:
        return f"What {be(fact.subject.name)} {subject} {fact.words}?", answer
    if coin(rng):
        return f"What is {fact.words} {target}?", answer
    return f"{capital(be(fact.subject.name))} {subject} {fact.words} {target}?", f"Yes, {answer}"


def what_state(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    if thing is None or not thing.states:
        return None
    name, state = view.call(thing), rng.choice(thing.states)
    return (
        f"{capital(be(thing.name))} {name} {state}?",
        f"Yes, {name} {be(thing.name)} {state}.",
    )


def _nameable(view: View, things: Sequence[Thing]) -> bool:
    return all(thing in view.things for thing in things)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


CONTENT_MAKERS = (
    what_is_shown,
    how_many,
    how_many_objects,
    how_many_of_color,
    is_there,
    is_there,
    what_color,
    what_has_color,
    what_size,
    what_state,
)
COMPARISON_MAKERS = (
    which_is_larger,
    same_color,
    is_it_colored,
    more_of_which,
    what_relation,
    what_color,
    is_there,
)
REFERRING_MAKERS = (
    what_color,
    is_it_colored,
    same_color,
    who_shares_color,
    which_of_name,
    which_is_larger,
    what_has_color,
    what_relation,
)
