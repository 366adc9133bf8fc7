"""English for the template teacher: articles, plurals, agreement, and the words that it knows."""

import re

COLORS: tuple[str, ...] = (
    "red", "blue", "green", "yellow", "orange", "purple", "black", "white", "brown", "pink",
    "gray", "cyan", "magenta", "beige", "tan", "gold", "silver", "maroon", "turquoise", "teal",
    "navy",
)  # fmt: skip
SIZES: tuple[str, ...] = ("large", "small", "big", "tiny", "huge", "medium", "little")
SHAPES: tuple[str, ...] = (
    "circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart", "rectangle",
    "hexagon", "pentagon",
)  # fmt: skip

_SPELLINGS = {"grey": "gray", "blonde": "blond"}
_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet",
    "tooth": "teeth", "mouse": "mice", "knife": "knives", "leaf": "leaves", "shelf": "shelves",
    "sheep": "sheep", "fish": "fish",
}  # fmt: skip
_SINGULARS = {plural: name for name, plural in _PLURALS.items() if plural != name}
_SINGULAR_IN_S = {"bus", "gas", "lens", "canvas", "cactus", "tennis", "atlas", "christmas", "iris"}
_SAME_PERSON = {"guy": "man", "male": "man", "gentleman": "man", "lady": "woman", "female": "woman"}
_PEOPLE = {"man", "woman", "person", "boy", "girl", "child", "kid", "baby", "player", "skin"}
_STATES = {
    "wooden", "brick", "metal", "plastic", "concrete", "clean", "dirty", "empty", "open", "closed",
    "round", "wet", "dry", "bare", "striped", "parked", "bright", "dark", "tall", "short", "shiny",
    "grassy", "leafy", "paved", "cloudy", "clear", "old", "young", "bald", "ripe", "thick", "thin",
}  # fmt: skip
_DOING = {
    "wear": "wearing", "hold": "holding", "carry": "carrying", "ride": "riding", "eat": "eating",
    "use": "using", "pull": "pulling", "push": "pushing", "watch": "watching", "drive": "driving",
    "look at": "looking at", "play with": "playing with", "touch": "touching", "face": "facing",
    "cover": "covering", "feed": "feeding", "fly": "flying", "throw": "throwing",
}  # fmt: skip
_PLACES = {
    "on", "in", "behind", "near", "next to", "beside", "by", "along", "under", "above", "below",
    "in front of", "on top of", "inside", "against", "over", "parked on", "parked in",
    "sitting on", "sitting in", "standing on", "standing in", "standing by", "hanging on",
    "hanging from", "lying on", "walking on", "growing on", "attached to", "mounted on",
    "leaning on", "leaning against", "to the left of", "to the right of",
}  # fmt: skip
_PLACE_SPELLINGS = {"left of": "to the left of", "right of": "to the right of"}


def is_plain_name(text: str) -> bool:
    """Whether the text is one to three lower-case words, fit to stand behind an article."""
    return re.fullmatch(r"[a-z][a-z-]+(?: [a-z][a-z-]+){0,2}", text) is not None


def head(name: str) -> str:
    """The singular last word, synonyms folded: what decides whether two names may mean the same."""
    last = singular(name.rsplit(" ", 1)[-1])
    return _SAME_PERSON.get(last, last)


def is_person(name: str) -> bool:
    """Whether the name means people, whose color no question should be about."""
    return head(name) in _PEOPLE


def is_plural(name: str) -> bool:
    last = name.rsplit(" ", 1)[-1]
    return last in _SINGULARS or (
        last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in _SINGULAR_IN_S
    )


def singular(word: str) -> str:
    if word in _SINGULARS:
        return _SINGULARS[word]
    if not is_plural(word):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("shes", "ches", "xes", "sses")) else word[:-1]


def plural(name: str) -> str:
    *front, last = name.split(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*front, last])


def a(name: str) -> str:
    """The name with its indefinite article, if it takes one."""
    if is_plural(name):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def be(name: str) -> str:
    return "are" if is_plural(name) else "is"


def count(number: int, name: str) -> str:
    """ "1 circle", "3 circles"."""
    return f"{number} {name if number == 1 else plural(name)}"


def joined(parts: list[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop, spaces in order."""
    flat = " ".join(text.split())
    flat = flat[:1].upper() + flat[1:]
    return flat if flat.endswith((".", "!", "?")) else f"{flat}."


def spelling(attribute: str) -> str:
    word = " ".join(attribute.lower().split())
    return _SPELLINGS.get(word, word)


def is_state(attribute: str) -> bool:
    """Whether "the thing is <attribute>" is English: a participle or a known adjective."""
    return is_plain_name(attribute) and (
        attribute in _STATES or re.fullmatch(r"[a-z]{3,}(?:ed|ing)", attribute) is not None
    )


def doing(predicate: str) -> str | None:
    """ "wears" -> "wearing"; None where the predicate is no action that the teacher knows."""
    words = " ".join(predicate.lower().split()).removeprefix("is ").removeprefix("are ")
    if words in _DOING.values():
        return words
    first, _, rest = words.partition(" ")
    for verb in (first, first.removesuffix("s"), first.removesuffix("ies") + "y"):
        known = _DOING.get(f"{verb} {rest}".strip())
        if known is not None:
            return known
    return None


def place(predicate: str) -> str | None:
    """ "ON" -> "on"; None where the predicate is no place that the teacher knows."""
    words = " ".join(predicate.lower().split()).removeprefix("is ").removeprefix("are ")
    words = _PLACE_SPELLINGS.get(words, words)
    return words if words in _PLACES else None
