"""One answer on its way from the engine's thread to the event loop, as text."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable

from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.inference.continuous import ContinuousEngine, FullError
from svit_jax.inference.engine import Prompt, Token
from svit_jax.inference.requests import Ticket
from svit_jax.inference.sampler import Sampling
from svit_jax.inference.text import Stops, TextStream
from svit_jax.serving.errors import ApiError, overloaded, shutting_down
from svit_jax.serving.replies import FinishReason


@dataclasses.dataclass(frozen=True)
class Piece:
    """Text that has become certain, and the tokens that came with it."""

    text: str
    tokens: list[Token]


@dataclasses.dataclass(frozen=True)
class Question:
    """What the engine is asked, and for whom."""

    prompt: Prompt
    limit: int
    sampling: Sampling
    stops: Stops
    client: str


class Answer:
    """The answer to a question: `pieces`, and once they have ended why, and how many tokens."""

    finish_reason: FinishReason | None = None
    tokens = 0

    def __init__(self, engine: ContinuousEngine, tokenizer: Tokenizer, question: Question):
        """Raises ApiError where the engine takes no more."""
        self._text = TextStream(tokenizer.text_decoder(), question.stops)
        # Bounded by the answer's own limit of tokens.
        self._news: asyncio.Queue[tuple[list[Token], bool]] = asyncio.Queue()
        if engine.broken:
            raise ApiError(503, "The model has failed; the server must be started anew.", "broken")
        try:
            self._ticket = engine.submit(
                question.prompt,
                question.limit,
                question.sampling,
                _into(self._news, asyncio.get_running_loop()),
                question.client,
            )
        except FullError:
            raise overloaded("Too many requests wait already; ask again in a moment.") from None

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yields the answer as it comes. Raises ApiError where it breaks off; whoever stops to
        listen cancels it."""
        try:
            waiting: list[Token] = []
            while self.finish_reason is None:
                tokens, last = await self._news.get()
                text = ""
                for token in tokens:
                    text += self._text.push(token.id)
                    waiting.append(token)
                    self.tokens += 1
                    if self._text.stopped:
                        break
                if self._text.stopped:
                    self.finish_reason = "stop"
                elif last:
                    text += self._text.finish()
                    self.finish_reason = _reason(self._ticket)
                if text or self.finish_reason:
                    yield Piece(text, waiting)
                    waiting = []
        finally:
            self.cancel()

    def cancel(self) -> None:
        self._ticket.cancel()


def _into(
    queue: asyncio.Queue[tuple[list[Token], bool]], loop: asyncio.AbstractEventLoop
) -> Callable[[list[Token], bool], None]:
    def deliver(tokens: list[Token], last: bool) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, (tokens, last))

    return deliver


def _reason(ticket: Ticket) -> FinishReason:
    if ticket.ended_by == "eos":
        return "stop"
    if ticket.ended_by == "limit":
        return "length"
    if ticket.ended_by == "cancelled":
        raise shutting_down()
    raise ApiError(500, "The model failed at this request.", "model_failed")
