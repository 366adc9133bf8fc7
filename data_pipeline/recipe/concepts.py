"""The concept set: the abilities that benchmarks test, each with keywords of texts about it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import yaml
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, require_file, write_text
from data_pipeline.recipe.keywords import words_of

OURS = pathlib.Path(__file__).parent / "concepts.yaml"


@dataclasses.dataclass(frozen=True)
class Concept:
    """An ability of a benchmark; `means` says in a few words what its questions ask."""

    benchmark: str
    ability: str
    means: str
    keywords: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.benchmark}/{self.ability}"


@dataclasses.dataclass(frozen=True)
class ConceptSet:
    """Concepts, and the different keywords of all of them in the order of their first mention."""

    concepts: tuple[Concept, ...]

    @property
    def keywords(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(k for concept in self.concepts for k in concept.keywords))

    @property
    def hash(self) -> str:
        return content_hash([dataclasses.asdict(concept) for concept in self.concepts])


def read_concepts(path: PathLike | None = None) -> ConceptSet:
    """The concept set of a YAML file, by default ours: MME's 14 subtasks, MMBench's 20 abilities.

    The form is `benchmark: {ability: {means: text, keywords: [word, some words, ...]}}`. Keywords
    that differ in case or hyphens alone are one. Raises UserError naming the entry that is wrong.
    """
    found = require_file(OURS if path is None else path, "concepts file")
    try:
        benchmarks = yaml.safe_load(found.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())[:160]
        raise UserError(f"concepts file {found} is not valid YAML: {detail}.") from None
    concepts = []
    for benchmark, abilities in _mapping(benchmarks, f"concepts file {found}").items():
        for ability, entry in _mapping(abilities, f"concepts file {found}, {benchmark}").items():
            place = f"concepts file {found}, {benchmark}/{ability}"
            entry = _mapping(entry, place)
            keywords = tuple(_keyword(k, place) for k in _list(entry.get("keywords"), place))
            means = str(entry.get("means", ability))
            concepts.append(Concept(str(benchmark), str(ability), means, _different(keywords)))
    return ConceptSet(tuple(concepts))


def write_concepts(path: PathLike, concepts: ConceptSet) -> None:
    """Writes the set in the form that `read_concepts` reads."""
    benchmarks: dict[str, dict[str, Any]] = {}
    for concept in concepts.concepts:
        entry = {"means": concept.means, "keywords": list(concept.keywords)}
        benchmarks.setdefault(concept.benchmark, {})[concept.ability] = entry
    write_text(path, yaml.safe_dump(benchmarks, sort_keys=False, allow_unicode=True, width=100))


Ask = Callable[[str], str]

LEAST_DRAFTED, MOST_DRAFTED = 5, 50


def draft_concepts(ask: Ask, base: ConceptSet, path: PathLike) -> ConceptSet:
    """Writes a concept set with the abilities of `base` and keywords that a teacher wrote.

    `ask` gets a prompt for each ability and returns the teacher's text. Raises UserError where
    `path` is there already, or fewer than LEAST_DRAFTED keywords can be read from an answer.
    """
    if epath.Path(path).exists():
        raise UserError(f"{path} is there already; choose another file for the drafted concepts.")
    drafted = []
    for concept in base.concepts:
        answer = ask(draft_prompt(concept))
        keywords = drafted_keywords(answer)
        if len(keywords) < LEAST_DRAFTED:
            raise UserError(
                f"the teacher's keywords for {concept.name} could not be read: {answer[:120]!r}; "
                "expected one keyword a line. Ask again, or use another model."
            )
        drafted.append(dataclasses.replace(concept, keywords=keywords))
    result = ConceptSet(tuple(drafted))
    write_concepts(path, result)
    return result


def draft_prompt(concept: Concept) -> str:
    return (
        f"A benchmark for vision-language models, {concept.benchmark}, tests the ability "
        f'"{concept.ability.replace("_", " ")}": {concept.means}. Which words would you expect in '
        "questions and answers about pictures that exercise this ability? Write 20 to "
        f"{MOST_DRAFTED} keywords, each a single English word or a phrase of two or three words, "
        "in lower case and in the base form (singular, infinitive). Choose words that tell this "
        "ability from others; leave out words such as image or picture that fit every text. "
        "Answer with one keyword a line and nothing else."
    )


def drafted_keywords(answer: str) -> tuple[str, ...]:
    """The keywords of a teacher's answer: a line or a part between commas each, at most
    MOST_DRAFTED; bullets, numbers and marks around them go, and so do whole sentences."""
    parts = (part for line in answer.splitlines() for part in line.split(","))
    keywords = tuple(" ".join(words_of(part)) for part in parts)
    short = tuple(keyword for keyword in keywords if 1 <= len(keyword.split()) <= 4)
    return _different(short)[:MOST_DRAFTED]


def _mapping(value: Any, place: str) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise UserError(
            f"{place} holds {str(value)[:60]!r}; expected a mapping: "
            "benchmark: {ability: {means: text, keywords: [...]}}."
        )
    return value


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f'{place} has no list under "keywords"; give it at least one.')
    return value


def _keyword(value: Any, place: str) -> str:
    if not isinstance(value, str) or not words_of(value):
        raise UserError(
            f"{place} has the keyword {value!r}; expected a word or a few (YAML takes "
            "words such as no and on for truth values: put them in quotes)."
        )
    return " ".join(words_of(value))


def _different(keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keywords))
