"""Picks what the report shows: right and wrong answers of all kinds, boxes beside the true ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.common.boxes import NormalBox, find_boxes
from svit_jax.evaluation.archives import Picture
from svit_jax.evaluation.benchmark import SHORT_ANSWER, Question
from svit_jax.evaluation.grounding import overlap, true_boxes
from svit_jax.evaluation.summary import BenchmarkRun


@dataclass(frozen=True)
class GalleryItem:
    """A picture with a question about it, the model's answer, the truth and the verdict."""

    image: Picture
    question: str
    answer: str
    truth: str
    correct: bool
    kind: str
    benchmark: str
    novel: bool = False


@dataclass(frozen=True)
class ReferringItem:
    """A referring question with the predicted and the true boxes, in fractions of the padded
    square; `score` is the intersection over union (0..1)."""

    image: Picture
    question: str
    answer: str
    predicted: tuple[NormalBox, ...]
    truth: tuple[NormalBox, ...]
    score: float


def choose_gallery(
    runs: Sequence[BenchmarkRun], count: int = 24, seed: int = 0
) -> list[GalleryItem]:
    """Up to `count` answered questions with pictures: kind after kind, every third place a wrong
    answer where the kind has one. Drawn by seed; pictures repeat only when none is left."""
    items = [item for run in runs for item in _items(run)]
    queues: list[dict[bool, list[GalleryItem]]] = []
    for kind in sorted({item.kind for item in items}):
        drawn = [item for item in items if item.kind == kind]
        random.Random(f"{seed}/{kind}").shuffle(drawn)
        queues.append({right: [i for i in drawn if i.correct is right] for right in (True, False)})
    chosen: list[GalleryItem] = []
    turn = 0
    while len(chosen) < count and any(queue[True] or queue[False] for queue in queues):
        round_number, place = divmod(turn, len(queues))
        queue = queues[place]
        turn += 1
        # The round in the sum moves the wrong answers' turn on to other kinds.
        wanted = (place + round_number) % 3 != 2
        source = queue[wanted] or queue[not wanted]
        if source:
            chosen.append(_take_unseen(source, {item.image for item in chosen}))
    return chosen


def choose_referring(run: BenchmarkRun, count: int = 6, seed: int = 0) -> list[ReferringItem]:
    """Up to `count` referring answers with pictures, drawn by seed whatever their score."""
    questions = [q for q in run.questions if q.image is not None and q.question_id in run.answers]
    random.Random(f"{seed}/referring").shuffle(questions)
    items = []
    for question in questions[:count]:
        assert question.image is not None
        answer = run.answers[question.question_id]
        items.append(
            ReferringItem(
                image=question.image,
                question=_bare(question),
                answer=answer,
                predicted=tuple(find_boxes(answer)),
                truth=tuple(true_boxes(question)),
                score=overlap(question, answer),
            )
        )
    return items


def _items(run: BenchmarkRun) -> list[GalleryItem]:
    return [
        GalleryItem(
            image=question.image,
            question=_bare(question),
            answer=run.answers[question.question_id],
            truth=run.benchmark.expected(question),
            correct=run.benchmark.correct(question, run.answers[question.question_id]),
            kind=question.kind,
            benchmark=run.benchmark.name,
            novel=question.novel,
        )
        for question in run.questions
        if question.image is not None
        and question.truth is not None
        and question.question_id in run.answers
    ]


def _bare(question: Question) -> str:
    return question.text.removesuffix(SHORT_ANSWER)


def _take_unseen(source: list[GalleryItem], shown: set[Picture]) -> GalleryItem:
    place = next((i for i, item in enumerate(source) if item.image not in shown), 0)
    return source.pop(place)
