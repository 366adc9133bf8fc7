"""`/v1/chat/completions`: a conversation in, its next message out, whole or as it is made."""

import asyncio
import functools
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from data_pipeline.common.errors import UserError
from svit_jax.api import Assistant
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.engine import Prompt
from svit_jax.inference.sampler import Sampling
from svit_jax.inference.text import Stops
from svit_jax.serving.answering import Answer, Question
from svit_jax.serving.body import read_json_body, while_there
from svit_jax.serving.conversation import (
    Conversation,
    check_picture,
    decode_data_url,
    read_conversation,
)
from svit_jax.serving.errors import ApiError, no_such_model
from svit_jax.serving.gate import Admission
from svit_jax.serving.remote import PictureFetcher
from svit_jax.serving.schema import ChatRequest, read_request
from svit_jax.serving.settings import ServerSettings
from svit_jax.serving.telemetry import Record
from svit_jax.serving.writing import Writer

T = TypeVar("T")

_SEEDS = 2**32

_LONGEST_TOKEN = 256
"""Characters. Text that can't fit is refused before it is made tokens of."""


class ChatCompletions:
    """The endpoint, as an ASGI application; a request names one of `assistants`."""

    def __init__(
        self,
        assistants: Mapping[str, Assistant],
        engine: ContinuousEngine,
        settings: ServerSettings,
        admission: Admission,
    ):
        self._assistants, self._engine = assistants, engine
        self._settings, self._admission = settings, admission
        self._fetcher = PictureFetcher(settings.access.url_hosts)
        self._pool = ThreadPoolExecutor(settings.decoders, "preparing")
        self._open: set[Answer] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._admission.place():
            limits = self._settings.limits
            asked = await self._in_pool(read_request, await read_json_body(scope, receive, limits))
            await while_there(self._answer(asked, scope, receive, send), receive)

    def cancel_all(self) -> None:
        """Ends all answers where they are; their readers are told."""
        for answer in self._open:
            answer.cancel()

    async def _answer(self, asked: ChatRequest, scope: Scope, receive: Receive, send: Send) -> None:
        record: Record = scope["state"]["record"]
        assistant = self._assistants.get(asked.model)
        if assistant is None:
            raise no_such_model(asked.model, self._assistants)
        record.answer["model"] = asked.model
        prompt = await self._prompt(asked, assistant)
        record.answer |= {
            "stream": bool(asked.stream),
            "pictures": len(prompt.images),
            "prompt_tokens": len(prompt.tokens),
        }
        if self._settings.log_contents:
            record.contents["messages"] = _shown(asked)
        # The files of the pictures are large, and an answer takes its time.
        asked.messages.clear()
        question = Question(
            prompt,
            self._limit(asked, len(prompt.tokens)),
            sampling(asked),
            Stops(asked.stops),
            record.client,
        )
        try:
            answer = Answer(self._engine, assistant.tokenizer, question)
        except UserError as error:
            raise ApiError(400, str(error), "context_length_exceeded", "messages") from None
        writer = Writer(asked, answer, record, assistant.tokenizer, len(prompt.tokens))
        self._open.add(answer)
        try:
            if asked.stream:
                await writer.stream(send)
            else:
                whole = (await writer.whole()).model_dump_json()
                await Response(whole, media_type="application/json")(scope, receive, send)
        finally:
            self._open.discard(answer)
            answer.cancel()
            record.answer |= {
                "completion_tokens": answer.tokens,
                "finish_reason": answer.finish_reason,
            }
            if self._settings.log_contents:
                record.contents["answer"] = writer.text

    async def _prompt(self, asked: ChatRequest, assistant: Assistant) -> Prompt:
        limits = self._settings.limits
        conversation = read_conversation(asked.messages, limits)
        longest = self._engine.max_length * _LONGEST_TOKEN
        texts = [conversation.system or "", *(turn.text for turn in conversation.turns)]
        if sum(map(len, texts)) > longest:
            raise ApiError(
                400,
                f"The messages hold more text than the context of {self._engine.max_length} tokens "
                "can; shorten the conversation.",
                "context_length_exceeded",
                "messages",
            )
        fetched: dict[str, bytes] = {}
        for picture in conversation.pictures:
            if picture.url[:5].lower() != "data:" and picture.url not in fetched:
                room = limits.body_bytes - sum(map(len, fetched.values()))
                fetched[picture.url] = await self._fetcher.fetch(picture, room)
        return await self._in_pool(self._make_prompt, assistant, conversation, fetched)

    def _make_prompt(
        self, assistant: Assistant, conversation: Conversation, fetched: dict[str, bytes]
    ) -> Prompt:
        files = []
        for picture in conversation.pictures:
            data = fetched.get(picture.url)
            files.append(decode_data_url(picture) if data is None else data)
            check_picture(picture, files[-1], self._settings.limits)
        try:
            return assistant.prompt(conversation.turns, files, conversation.system)
        except UserError as error:
            raise ApiError(400, str(error), "invalid_value", "messages") from None

    def _limit(self, asked: ChatRequest, prompt_tokens: int) -> int:
        """How many tokens the answer may have."""
        asked_for = (asked.max_tokens, asked.max_completion_tokens)
        given = {limit for limit in asked_for if limit is not None}
        if len(given) > 1:
            raise ApiError(
                400,
                "max_tokens and max_completion_tokens differ; give one of them.",
                "invalid_value",
                "max_tokens",
            )
        limits = self._settings.limits
        if not given:
            room = self._engine.max_length - prompt_tokens
            return max(1, min(limits.default_tokens, limits.new_tokens, room))
        (wanted,) = given
        if wanted > limits.new_tokens:
            raise ApiError(
                400,
                f"{wanted} tokens are more than this server gives; ask for {limits.new_tokens} at "
                "most.",
                "invalid_value",
                "max_tokens" if asked.max_tokens else "max_completion_tokens",
            )
        return wanted

    async def _in_pool(self, work: Callable[..., T], *given: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(work, *given))


def sampling(asked: ChatRequest) -> Sampling:
    """OpenAI's defaults: temperature 1, and a seed of its own for each request without one."""
    seed = secrets.randbits(32) if asked.seed is None else asked.seed % _SEEDS
    return Sampling(
        1.0 if asked.temperature is None else asked.temperature,
        1.0 if asked.top_p is None else asked.top_p,
        seed,
        asked.top_k or 0,
        asked.repetition_penalty or 1.0,
    )


def _shown(asked: ChatRequest) -> list[dict[str, Any]]:
    """The messages without their pictures."""
    return [
        {
            "role": message.role,
            "content": message.content
            if isinstance(message.content, str)
            else [getattr(part, "text", "(picture)") for part in message.content],
        }
        for message in asked.messages
    ]
