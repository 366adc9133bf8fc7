"""Asks a model, many calls at a time; tries again where that helps; journals each answer."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Generic

from tqdm import tqdm

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.journal import Journal
from data_pipeline.endpoint.budget import Budget
from data_pipeline.endpoint.call import Answer, C, Model, Tokens, TryAgainError
from data_pipeline.endpoint.pace import Pace, backoff

FAILURES_IN_A_ROW = 10
"""So many requests without an answer, and none with one between them: it is not the requests."""


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a model is asked: `concurrency` calls at a time, `tries` for each request, the wait
    before the second try in seconds (it doubles from there)."""

    concurrency: int = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tries: int = 8
    first_wait: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}; it must be more than 0.")


def answer_to_row(answer: Answer) -> dict[str, Any]:
    """The answer as it stands in the journal."""
    row: dict[str, Any] = {"response": answer.text}
    if answer.fault is not None:
        row["fault"] = answer.fault
    if answer.cut_off:
        row["cut_off"] = True
    if answer.tokens != Tokens():
        row["tokens"] = dataclasses.astuple(answer.tokens)
    return row


def answer_from_row(row: dict[str, Any]) -> Answer:
    return Answer(
        row["response"],
        Tokens(*row.get("tokens", ())),
        row.get("fault"),
        row.get("cut_off", False),
    )


def ask_all(
    requests: Iterator[C],
    model: Model[C],
    journal: Journal,
    budget: Budget,
    conduct: Conduct,
    bar: tqdm,
    inspect: Callable[[C, Answer], None] | None = None,
) -> None:
    """Asks every request and journals its answer under its key, in the order of their coming.

    A request that has no answer after `conduct.tries` is journalled with a fault. Where a UserError
    ends the asking (a wrong key, the budget, `inspect`), calls in flight are waited for and kept. A
    KeyboardInterrupt does not wait. `inspect` sees each answer; `bar` is moved on for each.
    """
    asking = _Asking(requests, model, journal, budget, conduct, bar, inspect)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(asking.run())
    else:  # in a notebook, whose thread has its own loop
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, asking.run()).result()


class _Asking(Generic[C]):
    def __init__(
        self,
        requests: Iterator[C],
        model: Model[C],
        journal: Journal,
        budget: Budget,
        conduct: Conduct,
        bar: tqdm,
        inspect: Callable[[C, Answer], None] | None,
    ):
        self._requests = requests
        self._model = model
        self._journal = journal
        self._budget = budget
        self._conduct = conduct
        self._inspect = inspect
        self._bar = bar
        self._pace = Pace(conduct.requests_per_minute, conduct.tokens_per_minute)
        self._stopped = asyncio.Event()
        self._error: UserError | None = None
        self._failures: list[tuple[C, Answer]] = []
        self._in_flight = 0
        self._answers = 0
        self._retries = 0
        self._trouble = ""

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._conduct.concurrency):
                    group.create_task(self._work())
        finally:
            await self._model.close()
        if self._error is not None:
            raise self._error
        self._keep_failures()

    async def _work(self) -> None:
        try:
            for request in self._requests:
                await self._ask(request)
                # A model that never waits would not let Ctrl-C through.
                await asyncio.sleep(0)
                if self._stopped.is_set():
                    return
        except UserError as error:
            self._error = self._error or error
            self._stopped.set()

    async def _ask(self, request: C) -> None:
        likely, most = self._model.estimate(request), self._model.bound(request)
        waits = failures = 0
        answers = self._answers
        while failures < self._conduct.tries:
            if waits:
                self._retries += 1
                await self._sleep(backoff(waits, self._conduct.first_wait))
            await self._sleep(self._pace.take(likely.total))
            while (held := self._pace.held()) and not self._stopped.is_set():
                await self._sleep(held)
            await self._budget.reserve(most)
            if self._stopped.is_set():
                self._budget.settle(most, Tokens())
                return
            try:
                answer = await self._call(request, most)
            except TryAgainError as error:
                self._trouble = str(error)
                if error.wait is not None:
                    self._pace.hold(error.wait)
                waits += 1
                # To be told to slow down, while others are answered, is no failure.
                failures += not error.too_fast or self._answers == answers
                answers = self._answers
            except BadRecordError as error:
                return self._failed(request, str(error))
            else:
                self._pace.correct(likely.total, answer.tokens.total)
                return self._answered(request, answer)
        tries = self._conduct.tries
        self._failed(request, f"no_answer: {tries} tries failed, the last: {self._trouble}")

    async def _call(self, request: C, most: Tokens) -> Answer:
        costs = most.total > 0  # a free call needs no account of its fate
        if costs:
            self._journal.begin(request.key, dataclasses.astuple(most))
        self._in_flight += 1
        self._show()
        used = Tokens()
        try:
            answer = await self._model.answer(request)
            used = answer.tokens
            self._journal.add(request.key, answer_to_row(answer))
            return answer
        except TryAgainError as error:
            used = most if error.may_be_billed else used
            if costs:
                self._journal.end(request.key, dataclasses.astuple(used))
            raise
        except UserError:
            if costs:
                self._journal.end(request.key)
            raise
        finally:
            self._in_flight -= 1
            self._budget.settle(most, used)

    def _answered(self, request: C, answer: Answer) -> None:
        self._answers += 1
        self._keep_failures()
        self._bar.update()
        self._show()
        if self._inspect is not None:
            self._inspect(request, answer)

    def _failed(self, request: C, reason: str) -> None:
        self._failures.append((request, Answer("", fault=reason)))
        if len(self._failures) == FAILURES_IN_A_ROW:
            raise UserError(
                f"{FAILURES_IN_A_ROW} requests in a row had no answer, the last of them "
                f"({request.key}): {reason} See whether the endpoint and its options are right, "
                "then run the same command again; these requests are asked again."
            )

    def _keep_failures(self) -> None:
        """Failures become rows once an answer shows that the endpoint works."""
        failures, self._failures = self._failures, []
        for request, answer in failures:
            self._journal.add(request.key, answer_to_row(answer))
            self._bar.update()
            if self._inspect is not None:
                self._inspect(request, answer)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    def _show(self) -> None:
        if self._budget.spent == Tokens() and not self._retries:
            return
        cost = self._budget.cost
        money = "" if cost is None else f", cost {cost:.2f}"
        trouble = f" (last: {self._trouble[:40]})" if self._trouble else ""
        self._bar.set_postfix_str(
            f"{self._in_flight} in flight, {self._budget.spent.total} tokens{money}, "
            f"{self._retries} retries{trouble}",
            refresh=False,
        )
