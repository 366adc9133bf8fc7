"""What a run would take, without a call."""

import dataclasses

from data_pipeline.common.progress import progress_bar
from data_pipeline.endpoint.budget import Budget, Prices
from data_pipeline.endpoint.call import Tokens
from data_pipeline.generation.run import Inputs, Run
from data_pipeline.generation.teacher import Teacher


@dataclasses.dataclass(frozen=True)
class Forecast:
    """`calls` are still to be made, `answered` stand in the journal.

    Input tokens are estimated; output tokens and the cost are at the most, with every answer as
    long as the limit allows. `spent` tokens were taken so far.
    """

    calls: int
    answered: int
    input_tokens: int
    output_tokens_at_most: int
    cost_at_most: float | None
    spent_tokens: int
    spent_cost: float | None


def forecast(inputs: Inputs, teacher: Teacher, prices: Prices | None = None) -> Forecast:
    """Counts what `generate` would ask now; nothing is called or written."""
    budget = Budget(prices)
    ahead = Tokens()
    calls = 0
    with Run(inputs, teacher.name, budget) as run:
        with progress_bar(run.total, "estimate", "call") as bar:
            for request in run.requests(answered=bar.update):
                ahead += teacher.estimate(request)
                calls += 1
                bar.update()
        return Forecast(
            calls=calls,
            answered=run.total - calls,
            input_tokens=ahead.input,
            output_tokens_at_most=ahead.output,
            cost_at_most=None if prices is None else prices.cost(ahead),
            spent_tokens=budget.spent.total,
            spent_cost=budget.cost,
        )
