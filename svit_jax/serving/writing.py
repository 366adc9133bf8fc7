"""An answer written as the API's replies: in one piece, or as server-sent events."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from starlette.types import Send

from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.inference.engine import Token
from svit_jax.serving.answering import Answer
from svit_jax.serving.errors import ApiError
from svit_jax.serving.replies import (
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Delta,
    Logprobs,
    ReplyMessage,
    TokenLogprob,
    Usage,
    error_event,
    event,
)
from svit_jax.serving.schema import ChatRequest
from svit_jax.serving.telemetry import Record

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # nginx would otherwise hold events back until they fill a buffer.
    (b"x-accel-buffering", b"no"),
]


class Writer:
    """Writes one answer; `text` is what has been written of it."""

    def __init__(
        self,
        asked: ChatRequest,
        answer: Answer,
        record: Record,
        tokenizer: Tokenizer,
        prompt_tokens: int,
    ):
        self._asked, self._answer, self._record = asked, answer, record
        self._tokenizer, self._prompt_tokens = tokenizer, prompt_tokens
        self._about: dict[str, Any] = {
            "id": f"chatcmpl-{record.id}",
            "created": int(time.time()),
            "model": asked.model,
        }
        self.text = ""

    async def whole(self) -> ChatCompletion:
        tokens: list[Token] = []
        async for piece in self._answer.pieces():
            self._saw(piece.text)
            tokens += piece.tokens
        assert self._answer.finish_reason
        choice = Choice(
            message=ReplyMessage(content=self.text),
            logprobs=self._logprobs(tokens),
            finish_reason=self._answer.finish_reason,
        )
        return ChatCompletion(**self._about, choices=[choice], usage=self._usage())

    async def stream(self, send: Send) -> None:
        """Sends events until the last; where the answer breaks off, one that says why."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            await self._send(send, event(self._chunk(Delta(role="assistant", content=""))))
            async for piece in self._answer.pieces():
                self._saw(piece.text)
                if piece.text or piece.tokens:
                    delta = Delta(content=piece.text)
                    await self._send(send, event(self._chunk(delta, piece.tokens)))
            last = self._chunk(Delta())
            last.choices[0].finish_reason = self._answer.finish_reason
            await self._send(send, event(last))
            options = self._asked.stream_options
            if options is not None and options.include_usage:
                usage = ChatChunk(**self._about, choices=[], usage=self._usage())
                await self._send(send, event(usage))
            await self._send(send, b"data: [DONE]\n\n")
        except ApiError as error:
            self._record.error = error.code
            await self._send(send, error_event(error.body()))
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
        # Where there is always room to send and something to be sent, nobody else had a turn.
        await asyncio.sleep(0)

    def _saw(self, text: str) -> None:
        if text and not self.text:
            self._record.answer["first_token_seconds"] = round(self._record.seconds, 4)
        self.text += text

    def _chunk(self, delta: Delta, tokens: Sequence[Token] = ()) -> ChatChunk:
        choice = ChunkChoice(delta=delta, logprobs=self._logprobs(tokens) if tokens else None)
        return ChatChunk(**self._about, choices=[choice])

    def _logprobs(self, tokens: Sequence[Token]) -> Logprobs | None:
        if not self._asked.logprobs:
            return None
        pieces = [(self._tokenizer.bytes_of(token.id), token) for token in tokens]
        return Logprobs(
            content=[
                TokenLogprob(
                    token=data.decode(errors="replace"),
                    logprob=token.log_probability,
                    bytes=list(data),
                )
                for data, token in pieces
            ]
        )

    def _usage(self) -> Usage:
        made = self._answer.tokens
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=made,
            total_tokens=self._prompt_tokens + made,
        )
