"""A teacher that needs no network: it answers from the annotations, in a language model's formats.

Everything it says follows from the annotations; where a scene is too poor for the asked number of
questions it writes fewer. The layout of its responses varies by seed as a real model's does.
"""

import random
from collections.abc import Collection, Sequence

from data_pipeline.annotations.scene import Scene
from data_pipeline.endpoint.call import Answer, Tokens
from data_pipeline.generation import ask_reasons
from data_pipeline.generation.ask import Maker, Pair, View, draw
from data_pipeline.generation.ask_places import PLACE_MAKERS, find
from data_pipeline.generation.ask_reasons import REASON_MAKERS
from data_pipeline.generation.ask_traits import (
    COMPARISON_MAKERS,
    CONTENT_MAKERS,
    REFERRING_MAKERS,
)
from data_pipeline.generation.describe import describe
from data_pipeline.generation.facts import Facts
from data_pipeline.generation.kinds import (
    COMPLEX_REASONING,
    CONVERSATION,
    DETAIL_DESCRIPTION,
    REFERRING_QA,
)
from data_pipeline.generation.teacher import Request

CONVERSATION_TURNS = 5
REASONING_PAIRS = 15
REFERRING_PAIRS = 10

_NOTHING = "It seems like your message is empty. Could you tell me about the image?"

_TOPICS: tuple[tuple[str, tuple[Maker, ...]], ...] = (
    ("What the image shows", CONTENT_MAKERS),
    ("Where things are", PLACE_MAKERS),
    ("How things compare", COMPARISON_MAKERS),
)
_REFERRING: tuple[Maker, ...] = (
    find,
    find,
    *PLACE_MAKERS,
    *REFERRING_MAKERS,
    ask_reasons.reached_first,
    ask_reasons.way_between,
    ask_reasons.easier_to_see,
    ask_reasons.shortest_way,
)


class TemplateTeacher:
    """Answers requests of every kind by templates; deterministic in (seed, picture, kind).

    `unasked` names combinations ("red star") that no question asks about where the answer would be
    no: those that a test holds out, which training would otherwise only ever see denied.
    """

    def __init__(self, unasked: Collection[str] = ()) -> None:
        self._unasked = frozenset(unasked)
        self.name = f"templates-1 {sorted(self._unasked)}" if unasked else "templates-1"
        self._scene: Scene | None = None
        self._facts: Facts | None = None

    def estimate(self, request: Request) -> Tokens:
        return Tokens()

    def bound(self, request: Request) -> Tokens:
        return Tokens()

    async def answer(self, request: Request) -> Answer:
        return Answer(self.respond(request))

    async def close(self) -> None: ...

    def respond(self, request: Request) -> str:
        """The response text. A scene of which nothing can be said gets "Your message is empty"."""
        facts = self._facts_of(request.scene)
        rng = random.Random(f"{request.seed}/{request.key}")
        if request.kind == DETAIL_DESCRIPTION:
            return describe(facts, rng) or _NOTHING
        if request.kind == CONVERSATION:
            return _conversations(View(facts, unasked=self._unasked), rng) or _NOTHING
        if request.kind == COMPLEX_REASONING:
            pairs = draw(REASON_MAKERS, View(facts), rng, REASONING_PAIRS, set())
            return _numbered(pairs, rng) or _NOTHING
        if request.kind == REFERRING_QA:
            view = View(facts, boxed=True, unasked=self._unasked)
            pairs = draw(_REFERRING, view, rng, REFERRING_PAIRS, set())
            return _numbered(pairs, rng) or _NOTHING
        raise ValueError(f"the template teacher knows no kind {request.kind!r}")

    def _facts_of(self, scene: Scene) -> Facts:
        # The kinds of one scene are asked in a row; its facts are worked out once.
        if self._facts is None or self._scene is not scene:
            self._scene, self._facts = scene, Facts(scene)
        return self._facts


def _conversations(view: View, rng: random.Random) -> str:
    asked: set[str] = set()
    heading = rng.choice(("plain", "plain", "bold", "numbered"))
    blocks: list[str] = []
    for topic, makers in rng.sample(_TOPICS, len(_TOPICS)):
        pairs = draw(makers, view, rng, CONVERSATION_TURNS, asked)
        if not pairs:
            continue
        number = len(blocks) + 1
        lines = {
            "bold": [f"**Conversation {number}**", f"**Topic:** {topic}"],
            "numbered": [f"Conversation {number}:", f"Topic: {topic}"],
        }.get(heading, [f"Topic: {topic}"])
        user, gpt = ("**User:**", "**GPT:**") if heading == "bold" else ("User:", "GPT:")
        for question, answer in pairs:
            lines += [f"{user} {question}", f"{gpt} {answer}"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _numbered(pairs: Sequence[Pair], rng: random.Random) -> str:
    """The pairs in one of the layouts that language models drift into."""
    layout = rng.choice(
        (
            "Question: {q}\nAnswer: {a}",
            "Question: {q}\nAnswer: {a}",
            "{n}. Question: {q}\nAnswer: {a}",
            "Question {n}: {q}\nAnswer {n}: {a}",
            "**Question:** {q}\n**Answer:** {a}",
            "{n}. **Question: {q}**\n   **Answer:** {a}",
        )
    )
    gap = rng.choice(("\n", "\n\n"))
    return gap.join(
        layout.format(n=number, q=question, a=answer)
        for number, (question, answer) in enumerate(pairs, start=1)
    )
