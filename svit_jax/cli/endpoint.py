"""The options of jobs that ask an endpoint: where it is, how fast it is asked, what it may cost."""

import argparse
from typing import Any

from data_pipeline.common.errors import UserError


def add_endpoint(group: Any) -> None:
    group.add_argument("--base-url", help="default: OPENAI_BASE_URL, else OpenAI")
    group.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        help="the environment variable that holds the key",
    )
    group.add_argument(
        "--limit-field",
        default="max_tokens",
        choices=("max_tokens", "max_completion_tokens"),
        help="what the endpoint calls the limit of an answer",
    )
    group.add_argument("--timeout", type=float, default=300.0, help="seconds for one call")


def add_conduct(group: Any) -> None:
    group.add_argument("--concurrency", type=int, default=1, help="calls at a time")
    group.add_argument("--requests-per-minute", type=float)
    group.add_argument("--tokens-per-minute", type=float)
    group.add_argument("--tries", type=int, default=8, help="for each request")
    group.add_argument("--price-input", type=float, help="of a million input tokens")
    group.add_argument("--price-output", type=float, help="of a million output tokens")
    group.add_argument(
        "--max-cost", type=float, help="stop before spending more, all runs together"
    )
    group.add_argument("--max-total-tokens", type=int, help="the same in tokens")


def conduct(options: argparse.Namespace) -> Any:
    from data_pipeline.endpoint.asking import Conduct

    return Conduct(
        options.concurrency,
        options.requests_per_minute,
        options.tokens_per_minute,
        options.tries,
    )


def budget(options: argparse.Namespace) -> Any:
    from data_pipeline.endpoint.budget import Budget

    return Budget(prices(options), options.max_cost, options.max_total_tokens)


def prices(options: argparse.Namespace) -> Any:
    from data_pipeline.endpoint.budget import Prices

    if options.price_input is None and options.price_output is None:
        return None
    if options.price_input is None or options.price_output is None:
        raise UserError("prices come in two: --price-input and --price-output, for a million each.")
    return Prices(options.price_input, options.price_output)


def openai_model(
    options: argparse.Namespace,
    temperature: float | None,
    max_answer_tokens: int,
    send_seed: bool = False,
) -> Any:
    """Who answers at the endpoint, `options.model`."""
    from data_pipeline.endpoint.openai_model import OpenAIModel

    return OpenAIModel(
        options.model,
        base_url=options.base_url,
        key_variable=options.key_variable,
        temperature=temperature,
        max_answer_tokens=max_answer_tokens,
        send_seed=send_seed,
        timeout=options.timeout,
        limit_field=options.limit_field,
        connections=options.concurrency,
    )
