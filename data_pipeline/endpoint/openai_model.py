"""A model behind an endpoint that speaks the OpenAI chat-completions API."""

import dataclasses
import json
import os
import random
import resource
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.endpoint.call import Answer, Call, Tokens, TryAgainError
from data_pipeline.endpoint.chat_api import error_of_status, read_completion, seconds_to_wait
from data_pipeline.endpoint.token_estimate import estimate_tokens

_LAYOUT_TOKENS = 16
"""What a chat template adds to the two messages, at the most."""
_OTHER_FILES = 64


class OpenAIModel:
    """Asks `model` at `base_url` (else the variable OPENAI_BASE_URL, else OpenAI itself) with the
    key in the environment variable `key_variable`.

    `temperature` is left to the endpoint where it is None; `send_seed` sends a seed of the call's
    seed and key. `limit_field` is how the endpoint calls the limit
    of `max_answer_tokens`. `connections` is how many calls are made at a time. The client and the
    key are needed by `answer` alone.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        temperature: float | None = None,
        max_answer_tokens: int = 2048,
        send_seed: bool = False,
        timeout: float = 300.0,
        limit_field: str = "max_tokens",
        connections: int = 1,
    ):
        # Not in the name: the address, so that a server may move; the limit, so that answers that
        # were cut off can be asked for again with a higher one.
        self.name = f"openai {model} temperature={temperature} seed={send_seed}"
        self._model = model
        self._base_url = base_url
        self._key_variable = key_variable
        self._temperature = temperature
        self._max_answer_tokens = max_answer_tokens
        self._send_seed = send_seed
        self._timeout = timeout
        self._limit_field = limit_field
        self._connections = connections
        self._client: Any = None

    def body(self, call: Call) -> dict[str, Any]:
        """The call as the API takes it."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                *([{"role": "system", "content": call.system}] if call.system else []),
                {"role": "user", "content": call.user},
            ],
            self._limit_field: self._max_answer_tokens,
        }
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if self._send_seed:
            body["seed"] = random.Random(f"{call.seed}/{call.key}").randrange(2**31)
        return body

    def estimate(self, call: Call) -> Tokens:
        """By `estimate_tokens`, and the limit of the answer."""
        words = estimate_tokens(call.system) + estimate_tokens(call.user)
        return Tokens(words + _LAYOUT_TOKENS, self._max_answer_tokens)

    def bound(self, call: Call) -> Tokens:
        """A token is at least one byte."""
        size = len(call.system.encode()) + len(call.user.encode())
        return Tokens(size + _LAYOUT_TOKENS, self._max_answer_tokens)

    async def answer(self, call: Call) -> Answer:
        if self._client is None:
            self._client = self._connect()
        import openai

        try:
            reply = await self._client.chat.completions.with_raw_response.create(**self.body(call))
        except openai.APIStatusError as error:
            wait = seconds_to_wait(error.response.headers.get("retry-after"))
            raise error_of_status(error.status_code, error.body or error.message, wait) from None
        except openai.APITimeoutError:
            raise TryAgainError(
                f"no answer within {self._timeout:g} seconds", may_be_billed=True
            ) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            raise TryAgainError(
                f"the connection failed ({cause}: {error.__cause__})",
                may_be_billed=cause != "ConnectError",
            ) from None
        try:
            body = json.loads(reply.http_response.content)
        except ValueError:
            kind = reply.http_response.headers.get("content-type", "no content type")
            raise TryAgainError(f"the reply is not JSON ({kind})", may_be_billed=True) from None
        answer = read_completion(body)
        if answer.tokens == Tokens():
            read = self.estimate(call).input
            tokens = Tokens(read, estimate_tokens(answer.text))
            answer = dataclasses.replace(answer, tokens=tokens)
        return answer

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connect(self) -> Any:
        try:
            import httpx2
            import openai
        except ImportError:
            raise UserError(
                "asking an endpoint needs the openai package; "
                "install it with: pip install 'svit-jax[generate]'."
            ) from None
        key = os.environ.get(self._key_variable)
        if not key:
            raise UserError(
                f"the endpoint's key is read from the environment variable {self._key_variable}, "
                "which is not set; set it (to any text, for a server that asks for none)."
            )
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files < self._connections + _OTHER_FILES:
            raise UserError(
                f"{self._connections} calls at a time need as many open files, and {files} are "
                f"allowed; ask fewer at a time, or raise the limit: ulimit -n "
                f"{self._connections + _OTHER_FILES}."
            )
        limits = httpx2.Limits(
            max_connections=self._connections, max_keepalive_connections=self._connections
        )
        # The client's own retries know neither the rate limits nor the budget.
        return openai.AsyncOpenAI(
            api_key=key,
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits),
        )
