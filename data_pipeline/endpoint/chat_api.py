"""The OpenAI chat-completions API as data: what is sent, and what the replies mean.

Shared by live calls (`openai_teacher.py`) and batch files (`batch_files.py`); needs no client.
"""

import email.utils
import time
from collections.abc import Mapping
from typing import Any

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.endpoint.call import Answer, Tokens, TryAgainError

_BROKE = {"insufficient_quota", "billing_hard_limit_reached"}
_BUSY = {408, 409, 425, 429}
_THIS_REQUEST = {400, 413, 422}


def read_completion(body: Any) -> Answer:
    """The answer in a chat completion; it has no tokens where the server reports no usage.

    Raises TryAgainError where the body is no chat completion.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        finish = choice.get("finish_reason")
        usage = body.get("usage") or {}
        tokens = Tokens(
            int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        )
        refusal = message.get("refusal")
        if not isinstance(text, str):
            raise TypeError
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise TryAgainError("the reply is no chat completion", may_be_billed=True) from None
    fault = None
    if finish == "content_filter":
        fault = "content_filter: the endpoint cut or withheld the answer"
    elif refusal:
        fault = f"refusal: {refusal}"
    return Answer(text, tokens, fault, cut_off=finish == "length")


def error_of_status(status: int, error: Any, wait: float | None = None) -> Exception:
    """What an HTTP error means, as the exception that `Teacher.answer` raises for it.

    `error` is the body's `error` object, or whatever came instead.
    """
    fields = error if isinstance(error, Mapping) else {}
    code = str(fields.get("code") or fields.get("type") or "")
    message = str(fields.get("message") or error or "no message")
    said = f"{status} {code} {message}".replace("  ", " ")
    if code in _BROKE:
        return UserError(f"the account can't pay for more calls ({said}); mend that and run again.")
    if status in _BUSY or status >= 500:
        return TryAgainError(said, wait, too_fast=status == 429)
    if status in _THIS_REQUEST:
        reason = "content_filter" if code == "content_filter" else "bad_request"
        return BadRecordError(f"{reason}: {said}")
    return UserError(
        f"the endpoint refuses every call ({said}); check the key, the model's name and the base "
        "URL, then run the same command again."
    )


def seconds_to_wait(retry_after: str | None) -> float | None:
    """What a `Retry-After` header asks for, be it seconds or a date; None where it says nothing."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
