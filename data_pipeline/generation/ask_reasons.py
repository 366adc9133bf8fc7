"""Questions that take a step of thought on top of a look: the answers give their because."""

import random

from data_pipeline.generation.ask import Pair, View, capital, coin
from data_pipeline.generation.ask_places import extreme, nearest_to
from data_pipeline.generation.ask_traits import clearly_larger, larger_and_smaller
from data_pipeline.generation.facts import level, side
from data_pipeline.generation.wording import be, count, joined, plural

_MIRRORED = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_TURNS = {"left": "right", "right": "left", "above": "down", "below": "up"}


def reached_first(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    where = side(*pair) if pair else None
    if pair is None or where is None:
        return None
    names = [view.call(thing) for thing in pair]
    shown = names if coin(rng) else names[::-1]
    return (
        f"Would a person coming from the {where} reach {shown[0]} or {shown[1]} first?",
        f"The person would reach {names[0]} first, because {names[0]} {be(pair[0].name)} "
        f"further to the {where} than {names[1]}.",
    )


def reached_first_of_all(view: View, rng: random.Random) -> Pair | None:
    from_left = coin(rng)
    thing = extreme(view, lambda thing: thing.center[0] if from_left else -thing.center[0])
    if thing is None:
        return None
    where = "left" if from_left else "right"
    return (
        f"Which object would a person reach first coming from the {where}?",
        f"{capital(view.call(thing))}, because it is further to the {where} than all the others.",
    )


def way_between(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    start, goal = pair
    horizontal, vertical = side(start, goal), level(start, goal)
    turns = [_TURNS[where] for where in (horizontal, vertical) if where]
    if not turns:
        return None
    places = [f"to the {_MIRRORED[horizontal]} of"] if horizontal else []
    places += [{"above": "below", "below": "above"}[vertical]] if vertical else []
    names = [view.call(start), view.call(goal)]
    return (
        f"Which way would an ant have to walk on the picture from {names[0]} to {names[1]}?",
        f"It would have to walk {joined(turns)}, because {names[1]} {be(goal.name)} "
        f"{joined(places)} {names[0]}.",
    )


def mirrored(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    if thing is None or not thing.placeable:
        return None
    sideways = coin(rng)
    words = thing.cell.split()
    turned = [
        _MIRRORED[word] if word in (("left", "right") if sideways else ("top", "bottom")) else word
        for word in words
    ]
    ends = ("left to right", "top to bottom")[0 if sideways else 1]
    now, then = " ".join(words), " ".join(turned)
    name = view.call(thing)
    question = f"If the image were flipped from {ends}, where would {name} be?"
    if now == then:
        return question, (
            f"It would still be in the {then}, because {name} {be(thing.name)} in the {now} now."
        )
    return question, (
        f"It would be in the {then}, because {name} {be(thing.name)} in the {now} now."
    )


def falls_on(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None or level(*pair) != "above":
        return None
    one, other = pair
    shared = min(one.box.x2, other.box.x2) - max(one.box.x1, other.box.x1)
    names = view.call(one), view.call(other)
    question = f"If {names[0]} fell straight down, would it hit {names[1]}?"
    if shared > 0.04:
        return question, (
            f"Yes, because {names[1]} {be(other.name)} below {names[0]} and in its way."
        )
    where = side(other, one)
    if shared > -0.04 or where is None:
        return None
    return question, (
        f"No, because {names[1]} {be(other.name)} too far to the {where} of {names[0]}."
    )


def count_difference(view: View, rng: random.Random) -> Pair | None:
    counts = sorted(view.facts.countable.items())
    if len(counts) < 2:
        return None
    (one, first), (other, second) = rng.sample(counts, 2)
    if first <= second:
        return None
    return (
        f"How many more {plural(one)} than {plural(other)} are there?",
        f"There {'is' if first - second == 1 else 'are'} {first - second} more, because there "
        f"{'is' if first == 1 else 'are'} {count(first, one)} and {count(second, other)}.",
    )


def remaining(view: View, rng: random.Random) -> Pair | None:
    if len(view.facts.things) < 2 or not view.facts.color_counts:
        return None
    color, number = rng.choice(sorted(view.facts.color_counts.items()))
    total = len(view.facts.things)
    return (
        f"If every {color} object were taken away, how many objects would be left?",
        f"{count(total - number, 'object')} would be left, because {number} of the "
        f"{count(total, 'object')} {'is' if number == 1 else 'are'} {color}.",
    )


def one_more(view: View, rng: random.Random) -> Pair | None:
    counts = sorted(view.facts.countable.items())
    if len(counts) < 2:
        return None
    (one, first), (other, second) = rng.sample(counts, 2)
    enough = first + 1 > second
    return (
        f"If one more {one} were added, would there be more {plural(one)} than {plural(other)}?",
        f"{'Yes' if enough else 'No'}, because there would be {count(first + 1, one)} and "
        f"{count(second, other)}.",
    )


def common_trait(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    one, other = pair
    if not view.facts.exhaustive:
        return None
    names = view.call(one), view.call(other)
    question = f"Why could {names[0]} and {names[1]} be sorted into the same group?"
    if one.color == other.color:
        return question, f"They could be sorted by color, because both are {one.color}."
    if one.name == other.name:
        return question, f"They could be sorted by shape, because both are {plural(one.name)}."
    return None


def odd_one_out(view: View, rng: random.Random) -> Pair | None:
    counts = view.facts.color_counts
    if len(counts) != 2 or len(view.facts.things) < 3 or 1 not in counts.values():
        return None
    color = next(color for color, number in counts.items() if number == 1)
    rest = next(other for other in counts if other != color)
    thing = next(thing for thing in view.facts.things if thing.color == color)
    if thing not in view.things:
        return None
    return (
        "Which object is the odd one out by its color?",
        f"{capital(view.call(thing))}, because it is {color} and all the others are {rest}.",
    )


def easier_to_see(view: View, rng: random.Random) -> Pair | None:
    pair = larger_and_smaller(view, rng)
    if pair is None:
        return None
    names = [view.call(thing) for thing in pair]
    shown = names if coin(rng) else names[::-1]
    return (
        f"Would {shown[0]} or {shown[1]} be easier to see from far away?",
        f"{capital(names[0])} would be easier to see, because {names[0]} {be(pair[0].name)} "
        f"larger in the image than {names[1]}.",
    )


def hardest_to_see(view: View, rng: random.Random) -> Pair | None:
    things = sorted(view.facts.things, key=lambda thing: thing.area)
    if not view.facts.exhaustive or len(things) < 2 or things[0] not in view.things:
        return None
    if not clearly_larger(things[1], things[0]):
        return None
    return (
        "Which object would be the hardest to see from far away?",
        f"{capital(view.call(things[0]))}, because it is the smallest object in the image.",
    )


def wanted_color(view: View, rng: random.Random) -> Pair | None:
    pair = view.two(rng)
    if pair is None:
        return None
    one, other = pair
    names = [view.colorless(one), view.colorless(other)]
    if None in (one.color, other.color, *names) or one.color == other.color:
        return None
    shown = names if coin(rng) else names[::-1]
    return (
        f"Which fits better into a collection of {one.color} things, {shown[0]} or {shown[1]}?",
        f"{capital(str(names[0]))}, because {names[0]} {be(one.name)} {one.color} and "
        f"{names[1]} {be(other.name)} {other.color}.",
    )


def shortest_way(view: View, rng: random.Random) -> Pair | None:
    thing = view.one(rng)
    nearest = nearest_to(view, thing) if thing else None
    if thing is None or nearest is None:
        return None
    return (
        f"Which object would have the shortest way to {view.call(thing)}?",
        f"{capital(view.call(nearest))}, because it is the closest to {view.call(thing)}.",
    )


def support(view: View, rng: random.Random) -> Pair | None:
    """What stands or lies on something depends on it."""
    facts = [fact for fact in view.facts.facts if fact.words == "on" or fact.words.endswith(" on")]
    fact = rng.choice(facts) if facts else None
    if fact is None or fact.subject not in view.things or fact.target not in view.things:
        return None
    subject, target = view.call(fact.subject), view.call(fact.target)
    return (
        f"What would be affected first if {target} were taken away?",
        f"{capital(subject)} would be affected, because {subject} {be(fact.subject.name)} "
        f"{fact.words} {target}.",
    )


def meeting_place(view: View, rng: random.Random) -> Pair | None:
    facts = [fact for fact in view.facts.facts if not fact.action]
    fact = rng.choice(facts) if facts else None
    if fact is None or fact.subject not in view.things or fact.target not in view.things:
        return None
    subject, target = view.call(fact.subject), view.call(fact.target)
    return (
        f"Where should a person go to get to {subject}?",
        f"The person should look for {target}, because {subject} {be(fact.subject.name)} "
        f"{fact.words} {target}.",
    )


REASON_MAKERS = (
    reached_first,
    reached_first_of_all,
    way_between,
    mirrored,
    falls_on,
    count_difference,
    remaining,
    one_more,
    common_trait,
    odd_one_out,
    easier_to_see,
    hardest_to_see,
    wanted_color,
    shortest_way,
    support,
    meeting_place,
)
