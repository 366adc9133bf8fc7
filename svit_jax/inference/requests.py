"""Requests that wait for their turn: each client's in order, and clients by turns."""

import dataclasses
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Literal

from svit_jax.inference.engine import Prompt, Token
from svit_jax.inference.sampler import Sampling
from svit_jax.inference.shapes import bucket_length

Deliver = Callable[[list[Token], bool], None]
"""Gets new tokens, without eos, and whether they are the last. Called from the engine's thread,
which waits for it."""

Ending = Literal["eos", "limit", "cancelled", "error"]


class FullError(Exception):
    """So many requests wait already that no more are taken."""


@dataclasses.dataclass(eq=False)
class Ticket:
    """A request on its way: what it asks, and how it ended. `client` is whose turn it takes."""

    prompt: Prompt
    max_new_tokens: int
    sampling: Sampling
    deliver: Deliver
    client: str = ""
    ended_by: Ending | None = None
    error: BaseException | None = None
    made: int = 0
    cancelled: bool = False
    wake: Callable[[], None] = lambda: None

    @property
    def shape(self) -> tuple[int, int]:
        """Requests of one shape can be prefilled together: the bucket, and how many pictures."""
        return bucket_length(len(self.prompt.tokens)), len(self.prompt.images)

    def cancel(self) -> None:
        """Asks for no more tokens, from any thread: its row is free before the next step."""
        self.cancelled = True
        self.wake()

    def give(self, tokens: list[Token], ending: Ending | None) -> None:
        """Hands tokens over; with an ending they are the last."""
        self.made += len(tokens)
        self.ended_by = ending
        if tokens or ending:
            self.deliver(tokens, ending is not None)


class FairQueue:
    """At most `size` waiting requests. The client whose turn it is gives its oldest one."""

    def __init__(self, size: int):
        self._size, self._count = size, 0
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def push(self, ticket: Ticket) -> None:
        """Raises FullError where there is no room."""
        with self._lock:
            if self._count >= self._size:
                raise FullError(f"{self._size} requests are waiting already")
            self._clients.setdefault(ticket.client, deque()).append(ticket)
            self._count += 1

    def pop(self, shape: tuple[int, int] | None = None) -> Ticket | None:
        """The next one; with a shape, of the clients' oldest ones that have it. None: there is
        none."""
        with self._lock:
            for client, waiting in self._clients.items():
                if shape is None or waiting[0].shape == shape:
                    ticket = waiting.popleft()
                    self._clients.move_to_end(client)
                    if not waiting:
                        del self._clients[client]
                    self._count -= 1
                    return ticket
        return None

    def take_cancelled(self) -> list[Ticket]:
        """Those that were cancelled while they waited, which then wait no longer."""
        with self._lock:
            found = [t for waiting in self._clients.values() for t in waiting if t.cancelled]
            for ticket in found:
                self._clients[ticket.client].remove(ticket)
                if not self._clients[ticket.client]:
                    del self._clients[ticket.client]
            self._count -= len(found)
        return found
