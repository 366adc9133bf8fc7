"""An evaluation by a job of several processes: the first runs it, all of them answer, each with a
model of its own or all with one that lies across them."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import require_file
from data_pipeline.images.transforms import decode_picture
from svit_jax import distributed
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.evaluation.run import AnswerAll

T = TypeVar("T")
_Asked = tuple[Path | bytes | NoPicture | None, str]
_Packed = tuple[str, str, str]
"""What kind of picture, the picture, and the question."""
_END = "end"


def on_all_hosts(answer_all: AnswerAll, group: int, run: Callable[[AnswerAll], T]) -> T | None:
    """What `run` gives in the first process, with an answerer that shares out its questions to all
    processes, `group` to each at a time; None in the others, once it has.

    So only the first reads benchmarks and writes files. Pictures must lie at the same paths on
    every host. An error of any answerer is raised in the first process.
    """
    if distributed.alone():
        return run(answer_all)
    if not distributed.is_first():
        while (asked := _told_by_first("")) != _END:
            _answers(answer_all, json.loads(asked))
        return None

    def shared(questions: Iterable[_Asked]) -> Iterator[str]:
        waiting = iter(questions)
        while some := [_packed(asked) for asked in islice(waiting, group * distributed.count())]:
            _told_by_first(json.dumps(some))
            yield from _answers(answer_all, some)

    try:
        return run(shared)
    finally:
        _told_by_first(_END)


def across_all_hosts(
    answer_all: AnswerAll, group: int, run: Callable[[AnswerAll], dict[str, float]]
) -> dict[str, float]:
    """What `run` gives in the first process, in all of them, with an answerer whose model lies
    across them: all answer every question, `group` at a time, in step.

    Only the first reads benchmarks and pictures and writes files. Its UserError is raised in all.
    """
    if distributed.alone():
        return run(answer_all)
    if not distributed.is_first():
        while "asked" in (told := json.loads(_told_by_first(""))):
            # What is wrong with a question is so in every process: the first says what came of it.
            with contextlib.suppress(UserError):
                list(answer_all(_unpacked(packed) for packed in told["asked"]))
        if "error" in told:
            raise UserError(told["error"])
        return told["found"]

    def in_step(questions: Iterable[_Asked]) -> Iterator[str]:
        waiting = iter(questions)
        while some := [_packed(_with_bytes(asked)) for asked in islice(waiting, group)]:
            _told_by_first(json.dumps({"asked": some}))
            yield from answer_all(_unpacked(packed) for packed in some)

    try:
        found = run(in_step)
    except UserError as error:
        _told_by_first(json.dumps({"error": str(error)}))
        raise
    _told_by_first(json.dumps({"found": found}))
    return found


def _with_bytes(asked: _Asked) -> _Asked:
    """The question with its picture's content, decoded once so that a broken one is named."""
    picture, question = asked
    if not isinstance(picture, Path):
        return asked
    content = require_file(picture, "picture").read_bytes()
    decode_picture(content, str(picture))
    return content, question


def _told_by_first(text: str) -> str:
    """The first process's text. Slow ones are waited for: a host may have much more to do."""
    distributed.barrier("questions")
    return distributed.from_first(text)


def _answers(answer_all: AnswerAll, questions: list[_Packed]) -> list[str]:
    """In the first process, the answers to all these questions; every process answers its share."""
    mine = [_unpacked(packed) for packed in questions[distributed.place() :: distributed.count()]]
    try:
        said = {"answers": list(answer_all(mine))}
    except UserError as error:
        said = {"error": [str(error)]}
    distributed.barrier("answers")
    found = [json.loads(text) for text in distributed.gather(json.dumps(said))]
    if not distributed.is_first():
        return []
    for each in found:
        if "error" in each:
            raise UserError(*each["error"])
    count = len(found)
    return [found[n % count]["answers"][n // count] for n in range(len(questions))]


def _packed(asked: _Asked) -> _Packed:
    picture, question = asked
    match picture:
        case None:
            return "blank", "", question
        case NoPicture():
            return "none", "", question
        case bytes():
            return "bytes", base64.b64encode(picture).decode(), question
        case _:
            return "path", str(picture), question


def _unpacked(packed: _Packed) -> _Asked:
    kind, content, question = packed
    pictures: dict[str, Callable[[], Path | bytes | NoPicture | None]] = {
        "blank": lambda: None,
        "none": lambda: NoPicture.TEXT_ALONE,
        "bytes": lambda: base64.b64decode(content),
        "path": lambda: Path(content),
    }
    return pictures[kind](), question
