"""Rate limits, waits and the budget's arithmetic, on a clock that the test moves."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.common.journal import Journal
from data_pipeline.endpoint.asking import Conduct
from data_pipeline.endpoint.budget import Budget, Prices
from data_pipeline.endpoint.call import Tokens, TryAgainError
from data_pipeline.endpoint.chat_api import error_of_status, read_completion, seconds_to_wait
from data_pipeline.endpoint.pace import BURST_SECONDS, LONGEST_WAIT, Pace, Rate, backoff
from data_pipeline.endpoint.token_estimate import estimate_tokens


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_lets_through_what_it_says_and_no_more() -> None:
    rng = random.Random(0)
    clock = Clock()
    rate = Rate(600.0, clock)
    sent: list[tuple[float, int]] = []
    for _ in range(400):
        clock.now += rng.choice((0.0, 0.0, 0.01, 0.5, 7.0))
        amount = rng.randint(1, 30)
        sent.append((clock.now + rate.take(amount), amount))
    assert [moment for moment, _ in sent] == sorted(moment for moment, _ in sent)
    # In every window: what flows in its time, what was saved, and the request that ends it.
    for first in range(len(sent)):
        total = 0
        for moment, amount in sent[first:]:
            total += amount
            assert total <= 10 * (moment - sent[first][0]) + 10 * BURST_SECONDS + 30 + 1e-6
    # And it is not slower than it must be: 1,000 at once take a minute and 40 seconds at 10 each.
    clock.now += 1000
    waits = [rate.take(10) for _ in range(100)]
    assert waits[-1] == pytest.approx(1000 / 10 - BURST_SECONDS)


def test_tokens_that_were_not_used_flow_back() -> None:
    clock = Clock()
    pace = Pace(tokens_per_minute=60.0, clock=clock)
    assert pace.take(100) == pytest.approx(100)
    pace.correct(estimated=100, used=40)
    assert pace.take(0) == pytest.approx(40)
    pace.hold(90.0)
    assert pace.take(0) == pytest.approx(90) and pace.held() == pytest.approx(90)
    clock.now += 90
    assert pace.held() == 0


def test_waits_double_and_stay_below_the_longest() -> None:
    for failures, most in ((1, 0.5), (2, 1.0), (5, 8.0), (30, LONGEST_WAIT)):
        waits = [backoff(failures, 0.5) for _ in range(200)]
        assert min(waits) >= most / 2 and max(waits) <= most
        assert max(waits) - min(waits) > most / 4


def test_the_budget_waits_for_calls_in_flight() -> None:
    async def scenario() -> list[str]:
        budget = Budget(max_tokens=100)
        events: list[str] = []

        async def second() -> None:
            await budget.reserve(Tokens(30, 30))
            events.append("second")

        await budget.reserve(Tokens(40, 40))
        task = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        events.append("first ends")
        budget.settle(Tokens(40, 40), Tokens(30, 10))
        await task
        budget.settle(Tokens(30, 30), Tokens(30, 30))
        assert budget.spent == Tokens(60, 40)
        with pytest.raises(UserError, match="100 tokens spent of --max-total-tokens 100"):
            await budget.reserve(Tokens(1, 0))
        return events

    assert asyncio.run(scenario()) == ["first ends", "second"]


def test_earlier_spending_and_lost_calls_count(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "me") as journal:
        for key in ("1/a", "1/b", "1/c", "1/d"):
            journal.begin(key, [100, 50])
        journal.add("1/a", {"response": "x", "tokens": [70, 5]})
        journal.end("1/b")
        journal.end("1/c", [100, 50])
    with Journal(path, "me") as journal:  # 1/d is lost, asked again, and lost again
        journal.begin("1/d", [100, 50])
    budget = Budget(Prices(2.0, 10.0))
    Journal(path, "me", budget.watch).close()
    assert budget.spent == Tokens(70 + 100 + 200, 5 + 50 + 100)
    assert budget.cost == pytest.approx((370 * 2 + 155 * 10) / 1e6)


def test_errors_mean_what_the_api_says() -> None:
    rate = {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}
    found = error_of_status(429, rate, 3.0)
    assert isinstance(found, TryAgainError) and found.wait == 3.0 and not found.may_be_billed
    assert isinstance(error_of_status(529, "<html>"), TryAgainError)
    for status in (401, 402, 403, 404, 405):
        assert type(error_of_status(status, None)) is UserError
    assert seconds_to_wait("1.5") == 1.5
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert seconds_to_wait("soon") is None and seconds_to_wait(None) is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": {"content": ["parts"]}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}},
    ],
)
def test_what_is_no_completion_is_asked_again(body: Any) -> None:
    with pytest.raises(TryAgainError, match="no chat completion"):
        read_completion(body)


def test_tokens_are_estimated_near_what_tokenizers_count() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("extraordinarily 12345\n") == 3 + 1 + 2 + 1
    line = "four men installing a traffic light: [0.032, 0.197, 0.992, 0.952]\n"
    advice = (
        "Don't say that you were given a description, a caption or a bounding box: answer as "
        "somebody who is looking at the picture."
    )
    # Counted by tiktoken 0.14 with cl100k_base.
    for text, tokens in (
        ("[0.588, 0.387, 0.692, 0.832]", 20),
        (line * 20, 540),
        (advice, 27),
    ):
        assert 0.95 * tokens <= estimate_tokens(text) <= 1.2 * tokens


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"tries": -1}, {"first_wait": 0.0}])
def test_conduct_is_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        Conduct(**options)
