"""The endpoint's teacher against a real HTTP server: what the server does wrong is survived."""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import (
    CUT,
    DROPPED,
    FILTERED,
    GOOD,
    HALF_BODY,
    HALF_JSON,
    HTML,
    NO_USAGE,
    REFUSED,
    USAGE,
    ChatServer,
    Error,
    reply_to,
)

from data_pipeline.common.errors import UserError
from data_pipeline.endpoint.asking import Conduct
from data_pipeline.endpoint.budget import Budget, Prices
from data_pipeline.endpoint.openai_model import OpenAIModel
from data_pipeline.generation.generate import generate
from data_pipeline.generation.kinds import KINDS

ORDER = (7, 3, 12, 1, 9, 5)
ALL_KEYS = {f"{image_id}/{kind}" for image_id in ORDER for kind in KINDS}
PASSING = (
    Error(429, retry_after="0.02"),
    Error(429),
    Error(500),
    Error(503),
    Error(408),
    HTML,
    HALF_JSON,
    HALF_BODY,
    DROPPED,
)
BRISK = Conduct(concurrency=8, first_wait=0.005)

pytestmark = pytest.mark.usefixtures("key")


def teacher(server: ChatServer, **options: Any) -> OpenAIModel:
    return OpenAIModel("m", base_url=server.url, connections=8, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".json"}


def journal_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").open()][1:]


def quarantined(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").open()]


def test_a_calm_server_is_asked_each_question_once(
    captioned_scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer() as server:
        asked = teacher(server, temperature=0.5, max_answer_tokens=77)
        budget = Budget(Prices(100.0, 1000.0))
        report = generate(captioned_scenes, tmp_path / "out", asked, budget=budget)
        # 24 calls of 150 tokens, of which 120 are read and 30 written.
        shown = "24/24", "0 in flight, 3600 tokens, cost 1.01, 0 retries"
        errors = capsys.readouterr().err
        assert all(text in errors for text in shown)
        generate(captioned_scenes, tmp_path / "out", asked)
    assert server.keys() == [f"{image_id}/{kind}" for image_id in ORDER for kind in KINDS]
    body = server.calls[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 77)
    assert "seed" not in body and "(2) objects:" in body["messages"][1]["content"]
    assert report.input_tokens == 24 * USAGE["prompt_tokens"]
    rows = json.loads((tmp_path / "out" / "complex_reasoning.json").read_text())
    assert [row["image_id"] for row in rows] == list(ORDER)
    assert rows[1]["conversations"] == [
        {
            "content": [
                {"from": "user", "value": "Why 3?"},
                {"from": "gpt", "value": "Because of 3."},
            ]
        }
    ]


def test_chaos_changes_no_byte_of_the_output(captioned_scenes: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    faults = {key: rng.choices(PASSING, k=rng.randint(0, 3)) for key in ALL_KEYS}

    def behave(key: str, nth: int) -> str | Error:
        return faults[key][nth - 1] if nth <= len(faults[key]) else GOOD

    with ChatServer(behave, latency=lambda key: rng.random() / 50) as server:
        generate(captioned_scenes, tmp_path / "wild", teacher(server), conduct=BRISK)
    assert Counter(server.keys()) == {key: len(faults[key]) + 1 for key in ALL_KEYS}
    order = [row["key"] for row in journal_rows(tmp_path / "wild") if "key" in row]
    assert sorted(order) == sorted(ALL_KEYS)
    with ChatServer() as server:
        generate(captioned_scenes, tmp_path / "calm", teacher(server))
    calm = [row["key"] for row in journal_rows(tmp_path / "calm") if "key" in row]
    assert order != calm, "the test wants answers out of order"
    assert contents(tmp_path / "wild") == contents(tmp_path / "calm")


def test_retry_after_is_honoured_by_all(captioned_scenes: Path, tmp_path: Path) -> None:
    first = f"{ORDER[0]}/{KINDS[0]}"

    def behave(key: str, nth: int) -> str | Error:
        return Error(429, retry_after="0.4") if (key, nth) == (first, 1) else GOOD

    # Whoever else is in flight when the 429 comes is answered; nobody is sent after it.
    with ChatServer(behave, latency=lambda key: 0.0 if key == first else 0.2) as server:
        generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=BRISK)
    later = sorted(call.time - server.calls[0].time for call in server.calls)
    assert max(later[:8]) < 0.3 and min(later[8:]) >= 0.4


def test_a_server_that_serves_few_at_a_time_serves_all(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    windows: Counter[int] = Counter()

    def behave(key: str, nth: int) -> str | Error:
        window = int(time.monotonic() / 0.04)
        windows[window] += 1
        return GOOD if windows[window] == 1 else Error(429)

    conduct = Conduct(concurrency=12, first_wait=0.05, tries=3)
    with ChatServer(behave) as server:
        asked = teacher(server)
        report = generate(captioned_scenes, tmp_path / "out", asked, KINDS[:2], conduct=conduct)
    assert report.rejections == {}
    assert max(Counter(server.keys()).values()) > 3, "the test wants more refusals than tries"


def test_what_is_cut_filtered_or_refused_is_quarantined_and_asked_again(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    bad = {
        "7/conversation": CUT,
        "3/detail_description": FILTERED,
        "12/complex_reasoning": REFUSED,
        "1/referring_qa": Error(400, "content_filter"),
        "9/conversation": Error(400, "context_length_exceeded"),
    }
    out = tmp_path / "out"

    def behave(key: str, nth: int) -> str | Error:
        return bad.get(key, GOOD) if nth == 1 or key == "12/complex_reasoning" else GOOD

    with ChatServer(behave) as server:
        asked = teacher(server, send_seed=True)
        report = generate(captioned_scenes, out, asked, conduct=BRISK)
        reasons = {row["id"]: row["reason"].split(":")[0] for row in quarantined(out)}
        assert reasons == {
            "7/conversation": "truncated",
            "3/detail_description": "content_filter",
            "12/complex_reasoning": "refusal",
            "1/referring_qa": "content_filter",
            "9/conversation": "bad_request",
        }
        assert report.kinds["conversation"].rejections == {"truncated": 1, "bad_request": 1}
        assert len(server.calls) == 24
        report = generate(captioned_scenes, out, asked, conduct=BRISK, retry_rejected=True)
        again = server.calls[24:]
        assert sorted(call.key for call in again) == sorted(bad)
        assert report.rejections == {"refusal": 1}
        assert [(row["id"], row["attempts"]) for row in quarantined(out)] == [
            ("12/complex_reasoning", 2)
        ]
        # Finished or not, a retry asks each rejected question once; only a new one goes on.
        generate(captioned_scenes, out, asked, conduct=BRISK)
        assert len(server.calls) == 29
        generate(captioned_scenes, out, asked, conduct=BRISK, retry_rejected=True)
        assert [call.key for call in server.calls[29:]] == ["12/complex_reasoning"]
    seeds = [c.body["seed"] for c in server.calls if c.key == "12/complex_reasoning"]
    assert len(set(seeds)) == 3
    kept = {row["key"]: row["value"] for row in journal_rows(out) if "key" in row}
    cut = kept["7/conversation"]
    assert cut["response"] and reply_to("7/conversation").startswith(cut["response"])
    assert kept["7/conversation/2"]["response"] == reply_to("7/conversation")


def test_of_two_attempts_the_one_with_more_to_use_counts(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    with ChatServer() as server:
        generate(captioned_scenes, tmp_path / "out", teacher(server), kinds=["conversation"])
        with (tmp_path / "out" / "journal.jsonl").open("a") as file:
            rich = reply_to("3/conversation") + "\nUser: And?\nGPT: So.\nUser: What"
            for key, text in (("7/conversation/2", "no"), ("3/conversation/2", rich)):
                file.write(json.dumps({"key": key, "value": {"response": text}}) + "\n")
        report = generate(
            captioned_scenes, tmp_path / "out", teacher(server), kinds=["conversation"]
        )
    rows = json.loads((tmp_path / "out" / "conversation.json").read_text())
    assert [len(row["conversations"][0]["content"]) for row in rows[:3]] == [2, 4, 2]
    assert report.kinds["conversation"].superseded == 2
    assert report.rejections == {"unpaired_turn": 1}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Error(401, "invalid_api_key"), "check the key"),
        (Error(404, "model_not_found"), "the model's name"),
        (Error(429, "insufficient_quota"), "can't pay"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(
    error: Error, words: str, captioned_scenes: Path, tmp_path: Path
) -> None:
    with ChatServer(lambda key, nth: error) as server:
        with pytest.raises(UserError, match=words):
            generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=BRISK)
        assert len(server.calls) <= BRISK.concurrency
    with ChatServer() as server:
        generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=BRISK)
        assert len(server.calls) == 24


def test_an_endpoint_that_is_down_stops_the_run_and_spoils_nothing(
    captioned_scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conduct = Conduct(concurrency=8, first_wait=0.001, tries=2)
    with ChatServer(lambda key, nth: Error(500)) as server:
        with pytest.raises(UserError, match="10 requests in a row had no answer"):
            generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=conduct)
        port_is_closed_soon = server.url
    gone = OpenAIModel("m", base_url=port_is_closed_soon)
    with pytest.raises(UserError, match="ConnectError"):
        generate(captioned_scenes, tmp_path / "out", gone, conduct=conduct)
    assert not any("key" in row for row in journal_rows(tmp_path / "out"))
    with ChatServer() as server:
        report = generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=conduct)
    assert report.rejections == {} and len(server.calls) == 24
    assert "in flight when the last run was stopped" not in capsys.readouterr().err


def test_one_request_that_never_works_stops_nobody(captioned_scenes: Path, tmp_path: Path) -> None:
    conduct = Conduct(concurrency=8, first_wait=0.001, tries=3)
    with ChatServer(lambda key, nth: DROPPED if key == "5/conversation" else GOOD) as server:
        report = generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=conduct)
    assert server.keys().count("5/conversation") == 3
    assert report.rejections == {"no_answer": 1}
    assert report.kinds["conversation"].pictures == 5


def test_a_server_that_reports_no_usage_is_estimated(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    with ChatServer(lambda key, nth: NO_USAGE) as server:
        report = generate(captioned_scenes, tmp_path / "out", teacher(server), conduct=BRISK)
    # "Why 3?" and so on: 4 to 20 tokens; each prompt has some hundred words.
    assert 24 * 4 < report.output_tokens < 24 * 60
    assert 24 * 150 < report.input_tokens < 24 * 900


def test_slow_answers_time_out_and_count_as_billed(captioned_scenes: Path, tmp_path: Path) -> None:
    slow = {"7/conversation"}

    def latency(key: str) -> float:
        return 0.6 if key in slow and not slow.discard(key) else 0.0

    budget = Budget(Prices(1.0, 1.0))
    with ChatServer(latency=latency) as server:
        asked = teacher(server, timeout=0.3, max_answer_tokens=1000)
        generate(captioned_scenes, tmp_path / "out", asked, conduct=BRISK, budget=budget)
    timeouts = len(server.calls) - 24  # more than one, on a machine that is busy
    assert server.keys().count("7/conversation") >= 2 and timeouts >= 1
    assert budget.spent.output == 24 * USAGE["completion_tokens"] + timeouts * 1000


@pytest.mark.parametrize("limit", ["tokens", "money"])
def test_the_budget_is_never_passed_and_the_run_goes_on(
    limit: str, captioned_scenes: Path, tmp_path: Path
) -> None:
    prices = Prices(input=2.0, output=8.0)
    spend = 8 * 150 + 3600 if limit == "tokens" else None
    cost = (10 * (120 * 2 + 30 * 8) + 9500) / 1e6 if limit == "money" else None
    out = tmp_path / "out"
    with ChatServer(latency=lambda key: 0.01) as server:
        asked = teacher(server, max_answer_tokens=500)
        with pytest.raises(UserError, match=r"the budget is used up.*--assemble"):
            budget = Budget(prices, cost, spend)
            generate(captioned_scenes, out, asked, conduct=BRISK, budget=budget)
        first = len(server.calls)
        assert 8 <= first < 24
        used = first * USAGE["total_tokens"]
        money = first * (120 * 2 + 30 * 8) / 1e6
        assert used <= (spend or used) and money <= (cost or money)
        # A prompt has over 1,150 bytes: what is set aside for two calls leaves no room for a third.
        assert server.most_at_once <= 2
        # The same budget again is used up before the first call: it covers all runs together.
        with pytest.raises(UserError, match="used up"):
            generate(captioned_scenes, out, asked, budget=Budget(prices, cost, spend))
        assert len(server.calls) == first
        report = generate(captioned_scenes, out, asked, ask=False)
        assert sum(kind.unanswered for kind in report.kinds.values()) == 24 - first
        generate(captioned_scenes, out, asked, budget=Budget(prices, 1.0), conduct=BRISK)
        assert server.most_at_once > 2
    assert Counter(server.keys()) == dict.fromkeys(ALL_KEYS, 1)


def test_too_many_rejections_stop_the_asking(captioned_scenes: Path, tmp_path: Path) -> None:
    with ChatServer(lambda key, nth: CUT) as server:
        with pytest.raises(UserError, match=r"more than the 5 allowed.*truncated"):
            generate(captioned_scenes, tmp_path / "out", teacher(server), max_bad=5)
        assert len(server.calls) == 6


def test_what_is_missing_is_said(
    captioned_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", key_variable="NO_SUCH_KEY")
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        generate(captioned_scenes, tmp_path / "out", asked)
    greedy = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", connections=10**9)
    with pytest.raises(UserError, match="ulimit -n 1000000064"):
        generate(captioned_scenes, tmp_path / "out", greedy)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"svit-jax\[generate\]"):
        generate(captioned_scenes, tmp_path / "out", OpenAIModel("m"))
    with pytest.raises(UserError, match="needs prices"):
        Budget(None, 1.0)
