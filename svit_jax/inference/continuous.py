"""Continuous batching: requests join and leave while others decode.

`rows` requests decode together over one cache of fixed shape. A prompt is prefilled by itself, in
the bucket of its own length, and put into a free row; so it always meets the same programs and gets
the same tokens, whatever decodes beside it.
"""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from data_pipeline.common.errors import UserError
from svit_jax.inference.engine import Engine, Prompt, Token
from svit_jax.inference.pictures import PictureCache
from svit_jax.inference.programs import (
    CHUNK,
    Emitted,
    Prompts,
    State,
    batch_parts,
)
from svit_jax.inference.requests import Deliver, Ending, FairQueue, FullError, Ticket
from svit_jax.inference.sampler import GREEDY, Sampling, Settings
from svit_jax.inference.shapes import bucket_length

__all__ = ["ContinuousEngine", "FullError", "Ticket", "cache_row_bytes"]

PICTURE_BYTES = 512 * 2**20


def cache_row_bytes(engine: Engine, length: int) -> int:
    """What a row of the cache takes, of all devices together: keys and values of all layers."""
    decoder = engine.config.decoder
    vectors = 2 * decoder.layers * bucket_length(length) * decoder.kv_heads
    if engine.int8_cache:
        return vectors * (decoder.head_dim + 4)  # with a float32 scale each
    return vectors * decoder.head_dim * jnp.dtype(engine.compute.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class _Call:
    """Tokens that the devices are making, and whose row each is."""

    emitted: Emitted
    tickets: dict[int, Ticket]


class ContinuousEngine:
    """Answers requests from a thread of its own, with the parameters of an `Engine`.

    rows: how many decode together; a cache of `rows` x `max_length` tokens is kept for them, so
    that what is admitted always has memory. chunk: tokens between two looks at who comes and goes.
    """

    def __init__(
        self,
        engine: Engine,
        rows: int = 8,
        max_length: int | None = None,
        chunk: int = 4,
        max_waiting: int = 64,
        picture_bytes: int = PICTURE_BYTES,
    ):
        if rows < 1 or not 1 <= chunk <= CHUNK:
            raise UserError(
                f"{rows} rows in chunks of {chunk} tokens: take at least a row, and 1 to {CHUNK} "
                "tokens."
            )
        parts = batch_parts(engine.mesh, engine.rules)
        self.max_length = min(max_length or engine.max_length, engine.max_length)
        self.rows = -(-rows // parts) * parts
        self._parameters, self._eos_id, self._chunk = engine.parameters, engine.eos_id, chunk
        self._vision = engine.config.vision
        self.prefill = engine.programs_of(parts)
        self.decode = engine.programs_of(self.rows)
        self.pictures = PictureCache(self._features, parts, picture_bytes)
        self._parts = parts
        self._running: dict[int, Ticket] = {}
        self._queue = FairQueue(max_waiting)
        self._calls: list[_Call] = []
        self._state: State = self.decode.idle(slots=bucket_length(self.max_length))
        self._news = threading.Event()
        self._closing = self._draining = False
        self.broken: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="decoding", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Prompt,
        max_new_tokens: int,
        sampling: Sampling,
        deliver: Deliver,
        client: str = "",
    ) -> Ticket:
        """Takes a request and returns at once. Clients take turns. Raises UserError for what can't
        be answered, and FullError where too many wait or no more are taken."""
        length = len(prompt.tokens)
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {max_new_tokens}; ask for at least 1.")
        if length + max_new_tokens > self.max_length:
            raise UserError(
                f"a prompt of {length} tokens and {max_new_tokens} new ones pass the context of "
                f"{self.max_length}; shorten the conversation or ask for fewer tokens."
            )
        if self._draining or self.broken:
            raise FullError("no more requests are taken")
        ticket = Ticket(prompt, max_new_tokens, sampling, deliver, client, wake=self._news.set)
        self._queue.push(ticket)
        self._news.set()
        return ticket

    def waiting(self) -> int:
        return len(self._queue)

    def running(self) -> int:
        return len(self._running)

    def picture_bytes(self) -> int:
        """What the features of pictures that were seen before take."""
        return self.pictures.bytes

    def close(self, drain: bool = True) -> None:
        """Takes no more requests, and returns when all have ended: answered, or without `drain`
        cancelled."""
        self._draining = True
        if not drain:
            self._closing = True
        self._news.set()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._finished():
                if not self._round():
                    self._news.wait()
        except BaseException as error:  # of the devices: nobody must wait for ever
            self.broken = error
        for ticket in self._all():
            ticket.error = self.broken
            self._give(ticket, [], "error" if self.broken else "cancelled")

    def _finished(self) -> bool:
        idle = not (self._running or self._calls or len(self._queue))
        return self._closing or (self._draining and idle)

    def _all(self) -> list[Ticket]:
        waiting = []
        while ticket := self._queue.pop():
            waiting.append(ticket)
        return [*self._running.values(), *waiting]

    def _round(self) -> bool:
        """Lets in, steps, delivers; whether there was something to do.

        The devices are a call ahead of what is delivered, so that they need not wait for the host.
        """
        self._news.clear()
        self._drop_cancelled()
        # One prefill, then the others decode again: nobody is held up by a long queue.
        self._admit()
        due, self._calls = self._calls, []
        if self._running:
            self._state, emitted = self.decode.decode(
                self._parameters, self._state, np.int32(self._chunk)
            )
            self._calls = [_Call(emitted, dict(self._running))]
        for call in due:
            self._deliver(call)
        return bool(due or self._calls)

    def _drop_cancelled(self) -> None:
        for ticket in self._queue.take_cancelled():
            self._give(ticket, [], "cancelled")
        gone = [row for row, ticket in self._running.items() if ticket.cancelled]
        if gone:
            released = np.isin(np.arange(self.rows), gone)
            self._state = self.decode.release(self._state, self.decode.put(released))
        for row in gone:
            self._give(self._running.pop(row), [], "cancelled")

    def _admit(self) -> None:
        """Prefills what is next, with others of its shape where the mesh has places for them."""
        free = [row for row in range(self.rows) if row not in self._running]
        first = self._queue.pop() if free else None
        if first is None:
            return
        tickets = [first]
        while len(tickets) < min(self._parts, len(free)):
            other = self._queue.pop(first.shape)
            if other is None:
                break
            tickets.append(other)
        # From here on they are known, whatever happens.
        self._running |= zip(free, tickets, strict=False)
        made, emitted = self._prefill(tickets)
        for source, row in enumerate(free[: len(tickets)]):
            self._state = self.decode.insert(self._state, made, np.int32(source), np.int32(row))
        self._calls.append(_Call(emitted, dict(enumerate(tickets))))

    def _prefill(self, tickets: list[Ticket]) -> tuple[State, Emitted]:
        length, pictures = tickets[0].shape
        rows = self._parts
        tokens = np.zeros((rows, length), np.int32)
        lengths = np.ones(rows, np.int32)
        vision_index = np.full((rows, length), -1, np.int32)
        limit, adapter = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, ticket in enumerate(tickets):
            lengths[row] = count = len(ticket.prompt.tokens)
            tokens[row, :count] = ticket.prompt.tokens
            vision_index[row, :count] = ticket.prompt.vision_index
            limit[row] = ticket.max_new_tokens
            adapter[row] = ticket.prompt.adapter
        idle = [GREEDY] * (rows - len(tickets))
        settings = Settings.of([*(ticket.sampling for ticket in tickets), *idle])
        put = self.prefill.put
        seen = self._looked_at(tickets, pictures)
        prompts = Prompts(put(tokens), put(lengths), put(vision_index), seen, put(adapter))
        return self.prefill.prefill(
            self._parameters, prompts, *put((settings, limit)), slots=length
        )

    def _looked_at(self, tickets: list[Ticket], pictures: int) -> Array:
        """The features of the tickets' pictures, [B, MP, D] with rows of nothing after them."""
        if not pictures:
            size = self._vision.image_size
            return self.prefill.put(np.zeros((self._parts, 0, size, size, 3), np.uint8))
        prompts = [ticket.prompt for ticket in tickets]
        images = [image for prompt in prompts for image in prompt.images]
        found = self.pictures.find(images, [p.adapter for p in prompts for _ in p.images])
        found += [jnp.zeros_like(found[0])] * (self._parts * pictures - len(found))
        stacked = jnp.stack(found)
        return self.prefill.put(stacked.reshape(self._parts, -1, stacked.shape[-1]))

    def _features(self, images: np.ndarray, adapters: np.ndarray) -> Array:
        return self.prefill.features(self._parameters, *self.prefill.put((images, adapters)))

    def _deliver(self, call: _Call) -> None:
        tokens, logs, steps = jax.device_get(call.emitted)
        for column, ticket in call.tickets.items():
            if ticket.ended_by:
                continue
            left = min(int(steps), ticket.max_new_tokens - ticket.made)
            ids = tokens[:left, column].tolist()
            ended = self._eos_id in ids
            ids = ids[: ids.index(self._eos_id)] if ended else ids
            new = [
                Token(*pair) for pair in zip(ids, logs[: len(ids), column].tolist(), strict=True)
            ]
            full = ticket.made + len(new) == ticket.max_new_tokens
            ending: Ending | None = "eos" if ended else "limit" if full else None
            if ending:
                row = next(row for row, other in self._running.items() if other is ticket)
                del self._running[row]
            self._give(ticket, new, ending)

    def _give(self, ticket: Ticket, tokens: list[Token], ending: Ending | None) -> None:
        """A receiver that fails loses its own request alone."""
        try:
            ticket.give(tokens, ending)
        except Exception as error:
            ticket.error = error
            ticket.cancelled = True
