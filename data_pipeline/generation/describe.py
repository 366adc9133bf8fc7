"""The template teacher's running text about a whole scene."""

import random
import re

from data_pipeline.generation.ask import View, capital
from data_pipeline.generation.facts import Facts, Thing
from data_pipeline.generation.wording import a, be, count, joined, sentence

MOST_SENTENCES = 12

_CLAUSE = re.compile(r"\b(?:is|are|was|were|has|have|wears|line|lines)\b")


def describe(facts: Facts, rng: random.Random) -> str:
    """An overview, then a sentence for each thing, then relations, then region phrases; at most
    MOST_SENTENCES. Empty where the scene says nothing."""
    sentences = []
    if facts.exhaustive:
        sentences += _about_all(facts, rng)
    else:
        sentences += [sentence(facts.scene.captions[0])] if facts.scene.captions else []
        sentences += _about_many(facts, rng, bool(sentences))
    return " ".join(list(dict.fromkeys(sentences))[:MOST_SENTENCES])


def _about_all(facts: Facts, rng: random.Random) -> list[str]:
    """Every thing, either by place in reading order ("In the top left there is a large red ring.")
    or by name in any order, the place after it: so both ways to look are asked of a reader, and
    no place can be told from the ones before."""
    things = sorted(facts.things, key=lambda thing: thing.third)
    shown = f"The image shows {count(len(things), 'object')}"
    if rng.random() < 0.5:
        places = [f"In the {thing.cell} there {be(thing.name)}" for thing in things]
        named = [a(thing.full_label) for thing in things]
        return [f"{shown}.", *(f"{p} {n}." for p, n in zip(places, named, strict=True))]
    rng.shuffle(things)
    listing = joined([a(thing.label) for thing in things])
    return [f"{shown}: {listing}.", *(_about(facts, thing) for thing in things)]


def _about_many(facts: Facts, rng: random.Random, introduced: bool) -> list[str]:
    """A choice for scenes with more things than a description holds: the largest ones first."""
    largest = sorted(facts.named, key=lambda thing: -thing.area)
    labels = list(dict.fromkeys(a(thing.name) for thing in largest))[:5]
    sentences = [] if introduced or not labels else [f"The image shows {joined(labels)}."]
    telling = [thing for thing in largest if thing.placeable][:4]
    sentences += [_about(facts, thing) for thing in telling]
    view = View(facts)
    relations = [f for f in facts.facts if f.subject in facts.named and f.target in facts.named]
    for fact in rng.sample(relations, min(3, len(relations))):
        subject, target = view.call(fact.subject), view.call(fact.target)
        sentences.append(f"{capital(subject)} {be(fact.subject.name)} {fact.words} {target}.")
    phrases = list(dict.fromkeys(" ".join(r.phrase.split()) for r in facts.scene.regions))
    phrases = [phrase.rstrip(". ") for phrase in phrases if phrase.strip(". ")]
    wanted = min(max(0, MOST_SENTENCES - len(sentences)), len(phrases))
    for phrase in rng.sample(phrases, wanted):
        if _CLAUSE.search(phrase):
            sentences.append(sentence(phrase))
        else:
            sentences.append(
                sentence(f"one part of the image shows {phrase[0].lower()}{phrase[1:]}")
            )
    return sentences


def _about(facts: Facts, thing: Thing) -> str:
    phrase = facts.phrases.get(thing.object_id)
    place = f"in the {thing.cell} of the image"
    if phrase is None:
        return f"There {be(thing.name)} {a(thing.full_label)} {place}."
    size = f"{thing.size} and " if thing.size and thing.size not in phrase.split() else ""
    return f"The {phrase} {be(thing.name)} {size}{place}."
