"""Batch files of the OpenAI API: requests written to files, results read into the journal.

Uploading, waiting and downloading are the user's: no call is made here.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import PathLike, open_atomic, read_jsonl
from data_pipeline.common.progress import progress, progress_bar
from data_pipeline.endpoint.asking import answer_to_row
from data_pipeline.endpoint.call import Answer, TryAgainError
from data_pipeline.endpoint.chat_api import error_of_status, read_completion
from data_pipeline.endpoint.openai_model import OpenAIModel
from data_pipeline.generation.run import Inputs, Run
from data_pipeline.generation.teacher import Request

MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
"""The API's documented limits of one file."""


@dataclasses.dataclass(frozen=True)
class BatchWritten:
    requests: int
    files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class BatchRead:
    """`answered` results were journalled (`faults` of them are of no use), `known` had been before.
    `failed` were not answered and stay to be asked, counted by what the endpoint said;
    `unanswered` is how many requests are open now."""

    answered: int
    faults: int
    known: int
    failed: dict[str, int]
    unanswered: int


def write_batch(
    inputs: Inputs,
    teacher: OpenAIModel,
    folder: PathLike,
    max_requests: int = MAX_REQUESTS,
    max_bytes: int = MAX_BYTES,
) -> BatchWritten:
    """Writes `requests-00001.jsonl` and so on for every request that the journal has no answer to.

    Raises UserError where the folder holds request files already: they may be under way.
    """
    target = epath.Path(folder)
    if target.exists() and any(target.glob("requests-*.jsonl")):
        raise UserError(
            f"the batch folder {target} holds request files already; choose another folder, or "
            "remove them if they were not sent."
        )
    files: list[str] = []
    count = 0
    with Run(inputs, teacher.name) as run, progress_bar(run.total, "write batch", "request") as bar:
        lines = (_line(teacher, request) for request in run.requests(answered=bar.update))
        for chunk in _chunks(lines, max_requests, max_bytes):
            path = target / f"requests-{len(files) + 1:05d}.jsonl"
            with open_atomic(path, "wb") as file:
                for line in chunk:
                    file.write(line)
                    count += 1
                    bar.update()
            files.append(str(path))
    return BatchWritten(count, tuple(files))


def _line(teacher: OpenAIModel, request: Request) -> bytes:
    row = {
        "custom_id": request.key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": teacher.body(request),
    }
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _chunks(lines: Iterator[bytes], max_requests: int, max_bytes: int) -> Iterator[Iterator[bytes]]:
    """The lines in groups within the limits; each group is read to its end before the next."""
    waiting = next(lines, None)

    def group() -> Iterator[bytes]:
        nonlocal waiting
        count = size = 0
        while waiting is not None and count < max_requests:
            if count and size + len(waiting) > max_bytes:
                return
            count += 1
            size += len(waiting)
            line, waiting = waiting, next(lines, None)
            yield line

    while waiting is not None:
        yield group()


def read_batch(inputs: Inputs, teacher: OpenAIModel, paths: Sequence[PathLike]) -> BatchRead:
    """Reads downloaded result and error files into the journal.

    Raises UserError, before anything is journalled, where a result is of none of this run's
    requests.
    """
    with Run(inputs, teacher.name) as run:
        open_keys = {request.key for request in run.requests()}
        for path, row in _rows(paths):
            key = row["custom_id"]
            if key not in open_keys and key not in run.journal:
                raise UserError(
                    f"batch results {path} have an answer to {key!r}, which this run does not ask; "
                    "give the scenes, kinds and options with which the batch was written."
                )
        count: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for _, row in progress(_rows(paths), "read batch", unit="result"):
            key = row["custom_id"]
            if key in run.journal:
                count["known"] += 1
                continue
            try:
                answer = _read_result(row)
            except TryAgainError as error:
                failed[str(error)] += 1
                continue
            run.journal.add(key, answer_to_row(answer))
            count["answered"] += 1
            count["faults"] += answer.fault is not None
        unanswered = len(open_keys) - count["answered"]
    return BatchRead(count["answered"], count["faults"], count["known"], dict(failed), unanswered)


def _rows(paths: Sequence[PathLike]) -> Iterator[tuple[PathLike, dict[str, Any]]]:
    for path in paths:
        for number, row in enumerate(read_jsonl(path, "batch results"), start=1):
            if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
                raise UserError(
                    f"batch results {path}, row {number}, have no custom_id; give the output or "
                    "error file as it was downloaded."
                )
            yield path, row


def _read_result(row: dict[str, Any]) -> Answer:
    """The answer of one line. Raises TryAgainError where there is none, and UserError where there
    will be none for any."""
    response = row.get("response")
    if not isinstance(response, dict):
        error = row.get("error")
        raise TryAgainError(str(error.get("code") if isinstance(error, dict) else error))
    status, body = response.get("status_code"), response.get("body")
    if status == 200:
        return read_completion(body)
    error = body.get("error", body) if isinstance(body, dict) else body
    try:
        raise error_of_status(status if isinstance(status, int) else 500, error)
    except BadRecordError as fault:
        return Answer("", fault=str(fault))
