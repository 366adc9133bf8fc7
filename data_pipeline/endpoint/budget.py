"""What a run may spend, in money and in tokens; it stops before that is passed."""

import asyncio
import dataclasses
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.endpoint.call import Tokens


@dataclasses.dataclass(frozen=True)
class Prices:
    """What a million input and output tokens cost, in the user's currency."""

    input: float
    output: float

    def cost(self, tokens: Tokens) -> float:
        return (tokens.input * self.input + tokens.output * self.output) / 1e6


class BudgetError(UserError):
    """The next call might take more than the budget has left."""


class Budget:
    """Keeps account of what is `spent` and of what calls in flight may still take.

    It covers all runs on one journal: `watch` reads the earlier spending from the journal's lines.
    A call of which nobody knows what it took (the run was killed, the connection was lost) counts
    as the most that it can have taken. Raises UserError where `max_cost` comes without prices.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_tokens: int | None = None,
    ):
        if max_cost is not None and prices is None:
            raise UserError(
                f"a budget of {max_cost:g} needs prices; give --price-input and --price-output, "
                "each for a million tokens."
            )
        self.prices = prices
        self._max_cost = max_cost
        self._max_tokens = max_tokens
        self.spent = Tokens()
        self._reserved = Tokens()
        self._begun: dict[str, Tokens] = {}
        self._changed = asyncio.Event()

    def watch(self, line: dict[str, Any]) -> None:
        """Counts one line of the journal (see `Journal`)."""
        if "begin" in line:
            # If it had begun before, nobody wrote down what became of that call: it stays counted.
            most = Tokens(*line["value"] or ())
            self._begun[line["begin"]] = most
            self.spent += most
        elif "key" in line:
            most = self._begun.pop(line["key"], Tokens())
            self.spent += Tokens(*line["value"].get("tokens", ())) - most
        else:
            most = self._begun.pop(line["end"], Tokens())
            self.spent += Tokens(*line["value"] or ()) - most

    @property
    def cost(self) -> float | None:
        return None if self.prices is None else self.prices.cost(self.spent)

    def _fits(self, tokens: Tokens) -> bool:
        total = self.spent + self._reserved + tokens
        if self._max_tokens is not None and total.total > self._max_tokens:
            return False
        return (
            self._max_cost is None
            or self.prices is None
            or (self.prices.cost(total) <= self._max_cost)
        )

    async def reserve(self, most: Tokens) -> None:
        """Sets aside the most that a call can take; waits while calls in flight hold too much.

        Raises BudgetError where it can't fit any more.
        """
        while not self._fits(most):
            if self._reserved == Tokens():
                raise BudgetError(
                    f"the budget is used up: {self._amount(self.spent)} spent of "
                    f"{self._limits()}, and the next call may take {self._amount(most)}; raise the "
                    "budget and run the same command again (answers are kept)."
                )
            changed = self._changed
            await changed.wait()
        self._reserved += most

    def settle(self, most: Tokens, used: Tokens) -> None:
        """A call has ended: `most` was set aside for it, `used` is what it took."""
        self._reserved -= most
        self.spent += used
        self._changed.set()
        self._changed = asyncio.Event()

    def _amount(self, tokens: Tokens) -> str:
        money = "" if self.prices is None else f" ({self.prices.cost(tokens):.4f})"
        return f"{tokens.total} tokens{money}"

    def _limits(self) -> str:
        limits = []
        if self._max_cost is not None:
            limits.append(f"--max-cost {self._max_cost:g}")
        if self._max_tokens is not None:
            limits.append(f"--max-total-tokens {self._max_tokens}")
        return " and ".join(limits)
