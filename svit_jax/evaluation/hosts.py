"""An evaluation by a job of several processes: the first runs it, all of them answer."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from data_pipeline.common.errors import UserError
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
        while (asked := _exchange("questions", "")[0]) != _END:
            _answers(answer_all, json.loads(asked))
        return None

    def shared(questions: Iterable[_Asked]) -> Iterator[str]:
        waiting = iter(questions)
        while some := [_packed(asked) for asked in islice(waiting, group * distributed.count())]:
            _exchange("questions", json.dumps(some))
            yield from _answers(answer_all, some)

    try:
        return run(shared)
    finally:
        _exchange("questions", _END)


def _exchange(what: str, text: str) -> list[str]:
    """Every process's text. Slow ones are waited for: a host may have much more to do."""
    distributed.barrier(what)
    return distributed.gather(text)


def _answers(answer_all: AnswerAll, questions: list[_Packed]) -> list[str]:
    """In the first process, the answers to all these questions; every process answers its share."""
    mine = [_unpacked(packed) for packed in questions[distributed.place() :: distributed.count()]]
    try:
        said = {"answers": list(answer_all(mine))}
    except UserError as error:
        said = {"error": [str(error)]}
    found = [json.loads(text) for text in _exchange("answers", json.dumps(said))]
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
