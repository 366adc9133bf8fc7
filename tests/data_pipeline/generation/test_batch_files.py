"""Dry run and batch files: nothing is called, and the journal is as if it had been."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from chat_server import USAGE, ChatServer, reply_to

from data_pipeline.common.errors import UserError
from data_pipeline.endpoint.budget import Prices
from data_pipeline.endpoint.openai_model import OpenAIModel
from data_pipeline.generation.batch_files import BatchRead, read_batch, write_batch
from data_pipeline.generation.forecast import Forecast, forecast
from data_pipeline.generation.generate import generate
from data_pipeline.generation.run import Inputs

TEACHER = OpenAIModel("m", max_answer_tokens=100)

pytestmark = pytest.mark.usefixtures("key")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.open()]


def result(key: str, **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply_to(key), "refusal": None}
    body = {"choices": [{"message": message, "finish_reason": "stop", **choice}], "usage": USAGE}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": key, "response": response, "error": None}


def failure(key: str, status: int, code: str) -> dict[str, Any]:
    body = {"error": {"code": code, "message": "as the test wants it"}}
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": key, "response": response, "error": None}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_requests_are_those_of_live_calls(captioned_scenes: Path, tmp_path: Path) -> None:
    inputs = Inputs(captioned_scenes, tmp_path / "out")
    written = write_batch(inputs, TEACHER, tmp_path / "batch")
    assert written.requests == 24 and len(written.files) == 1
    assert not (tmp_path / "out").exists()
    with ChatServer() as server:
        live = OpenAIModel("m", base_url=server.url, max_answer_tokens=100)
        generate(captioned_scenes, tmp_path / "live", live)
    rows = lines_of(tmp_path / "batch")
    assert [(row["custom_id"], row["body"]) for row in rows] == [
        (call.key, call.body) for call in server.calls
    ]
    assert {(row["method"], row["url"]) for row in rows} == {("POST", "/v1/chat/completions")}
    with pytest.raises(UserError, match="holds request files already"):
        write_batch(inputs, TEACHER, tmp_path / "batch")


@pytest.mark.parametrize(("requests", "size"), [(5, 10**9), (50_000, 9_000), (3, 9_000)])
def test_files_keep_to_the_limits(
    requests: int, size: int, captioned_scenes: Path, tmp_path: Path
) -> None:
    inputs = Inputs(captioned_scenes, tmp_path / "out")
    write_batch(inputs, TEACHER, tmp_path / "whole")
    written = write_batch(inputs, TEACHER, tmp_path / "parts", requests, size)
    expected: list[list[bytes]] = [[]]
    for line in (tmp_path / "whole" / "requests-00001.jsonl").open("rb"):
        full = len(expected[-1]) == requests or sum(map(len, expected[-1])) + len(line) > size
        if expected[-1] and full:
            expected.append([])
        expected[-1].append(line)
    assert len(expected) > 2
    assert [Path(path).read_bytes() for path in written.files] == [b"".join(e) for e in expected]


def test_results_in_any_order_give_the_files_of_a_live_run(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    out, batch = tmp_path / "out", tmp_path / "batch"
    inputs = Inputs(captioned_scenes, out)
    write_batch(inputs, TEACHER, batch)
    keys = [row["custom_id"] for row in lines_of(batch)]
    random.Random(1).shuffle(keys)
    cut, broken, late, busy, *good = keys
    results = write(
        tmp_path / "results.jsonl",
        [*map(result, good), result(cut, finish_reason="length"), failure(broken, 400, "bad")],
    )
    expired = {"code": "batch_expired", "message": "not in time"}
    errors = write(
        tmp_path / "errors.jsonl",
        [
            {"id": "b", "custom_id": late, "response": None, "error": expired},
            failure(busy, 500, "server_error"),
        ],
    )
    read = read_batch(inputs, TEACHER, [results, errors])
    assert (read.answered, read.faults, read.known, read.unanswered) == (22, 1, 0, 2)
    assert sorted(code.split()[0] for code in read.failed) == ["500", "batch_expired"]
    again = read_batch(inputs, TEACHER, [results])
    assert again == BatchRead(answered=0, faults=0, known=22, failed={}, unanswered=2)
    report = generate(captioned_scenes, out, TEACHER, ask=False)
    assert sum(kind.unanswered for kind in report.kinds.values()) == 2
    assert report.rejections == {"truncated": 1, "bad_request": 1}
    # What failed goes into the next batch, what was rejected into that of a retry.
    write_batch(inputs, TEACHER, tmp_path / "next")
    assert {row["custom_id"] for row in lines_of(tmp_path / "next")} == {late, busy}
    read_batch(inputs, TEACHER, [write(tmp_path / "r2.jsonl", [result(late), result(busy)])])
    retry = Inputs(captioned_scenes, out, retry_rejected=True)
    write_batch(retry, TEACHER, tmp_path / "retry")
    retried = {row["custom_id"] for row in lines_of(tmp_path / "retry")}
    assert retried == {f"{cut}/2", f"{broken}/2"}
    rows = [{**result(key), "custom_id": f"{key}/2"} for key in (cut, broken)]
    read_batch(retry, TEACHER, [write(tmp_path / "r3.jsonl", rows)])
    generate(captioned_scenes, out, TEACHER, ask=False)
    with ChatServer() as server:
        live = OpenAIModel("m", base_url=server.url, max_answer_tokens=100)
        generate(captioned_scenes, tmp_path / "live", live)
    for kind in ("conversation", "complex_reasoning", "detail_description", "referring_qa"):
        name = f"{kind}.json"
        assert (out / name).read_bytes() == (tmp_path / "live" / name).read_bytes()


def test_foreign_results_are_refused_whole(captioned_scenes: Path, tmp_path: Path) -> None:
    inputs = Inputs(captioned_scenes, tmp_path / "out")
    rows = [result("7/conversation"), result("99/conversation")]
    with pytest.raises(UserError, match="'99/conversation', which this run does not ask"):
        read_batch(inputs, TEACHER, [write(tmp_path / "r.jsonl", rows)])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="row 1, have no custom_id"):
        read_batch(inputs, TEACHER, [write(tmp_path / "r.jsonl", [{"id": "file"}])])
    refused = write(tmp_path / "r.jsonl", [failure("7/conversation", 404, "model_not_found")])
    with pytest.raises(UserError, match="the model's name"):
        read_batch(inputs, TEACHER, [refused])


def test_a_dry_run_counts_what_is_open(captioned_scenes: Path, tmp_path: Path) -> None:
    inputs = Inputs(captioned_scenes, tmp_path / "out")
    prices = Prices(input=3.0, output=7.0)
    whole = forecast(inputs, TEACHER, prices)
    assert (whole.calls, whole.answered, whole.output_tokens_at_most) == (24, 0, 2400)
    assert whole.cost_at_most == pytest.approx((whole.input_tokens * 3 + 2400 * 7) / 1e6)
    assert not (tmp_path / "out").exists()
    write_batch(inputs, TEACHER, tmp_path / "batch")
    # Four characters a token is too few for boxes, one for each is far too many.
    size = sum(
        len(message["content"])
        for row in lines_of(tmp_path / "batch")
        for message in row["body"]["messages"]
    )
    assert size / 5 < whole.input_tokens < size / 2
    read_batch(
        inputs,
        TEACHER,
        [write(tmp_path / "r.jsonl", [result("7/conversation"), result("5/referring_qa")])],
    )
    rest = forecast(inputs, TEACHER, prices)
    assert (rest.calls, rest.answered, rest.output_tokens_at_most) == (22, 2, 2200)
    assert rest.spent_tokens == 2 * USAGE["total_tokens"]
    assert rest.spent_cost == pytest.approx(2 * (120 * 3 + 30 * 7) / 1e6)
    assert forecast(inputs, TEACHER) == Forecast(
        22, 2, rest.input_tokens, 2200, None, rest.spent_tokens, None
    )
