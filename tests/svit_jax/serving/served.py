"""A real server on a free port of this machine, with an engine that says what the test wants."""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

import httpcore

from data_pipeline.common.errors import UserError
from svit_jax.api import Assistant
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.engine import Token
from svit_jax.inference.requests import FullError, Ticket
from svit_jax.serving.app import make_service
from svit_jax.serving.run import DrainingServer, listen
from svit_jax.serving.settings import ServerSettings
from svit_jax.serving.warming import WarmUp

SETTINGS = ServerSettings("tiny", port=0)


class ScriptedEngine(ContinuousEngine):
    """Says `tokens`, whatever it is asked, then eos; each a log-probability of -1, -2, ... Keeps
    what it was asked. While `pause` is set it says nothing."""

    def __init__(self, tokens: list[int], rows: int = 4, max_length: int = 400, full: bool = False):
        self.tokens, self.rows, self.max_length = tokens, rows, max_length
        self.full, self.broken = full, None
        self.tickets: list[Ticket] = []
        self.go = threading.Event()
        self.go.set()

    def submit(self, prompt, max_new_tokens, sampling, deliver, client=""):
        if len(prompt.tokens) + max_new_tokens > self.max_length:
            raise UserError(f"a prompt of {len(prompt.tokens)} tokens is too long.")
        if self.full:
            raise FullError("it is full")
        ticket = Ticket(prompt, max_new_tokens, sampling, deliver, client)
        self.tickets.append(ticket)
        threading.Thread(target=self._say, args=[ticket], daemon=True).start()
        return ticket

    def running(self):
        return sum(ticket.ended_by is None for ticket in self.tickets)

    def waiting(self):
        return 0

    def picture_bytes(self):
        return 0

    def close(self, drain=True):
        for ticket in self.tickets:
            ticket.cancel()

    def _say(self, ticket):
        said = self.tokens[: ticket.max_new_tokens]
        for number, token in enumerate(said, 1):
            while not self.go.wait(0.01) and not ticket.cancelled:
                pass
            if ticket.cancelled:
                return ticket.give([], "cancelled")
            ticket.give([Token(token, -float(number))], None)
        ticket.give([], "eos" if len(said) < ticket.max_new_tokens else "limit")


@dataclasses.dataclass(frozen=True)
class Served:
    url: str
    server: DrainingServer
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """Status, headers in lower case and body of one request."""
        fields = [
            (name.replace("_", "-"), value.encode("latin-1")) for name, value in headers.items()
        ]
        if body is not None and "content_type" not in headers:
            fields.append(("Content-Type", b"application/json"))
        reply = httpcore.request(
            method, self.url + path, headers=fields, content=body, extensions={"timeout": TIMEOUT}
        )
        found = {name.decode().lower(): value.decode() for name, value in reply.headers}
        return reply.status, found, reply.content


TIMEOUT = dict.fromkeys(("connect", "read", "write", "pool"), 60.0)


@contextlib.contextmanager
def serving(
    assistant: Assistant,
    engine: ContinuousEngine,
    settings: ServerSettings = SETTINGS,
    max_waiting: int = 8,
    warm_up: WarmUp | None = None,
) -> Iterator[Served]:
    listening = listen(settings)
    service = make_service(assistant, engine, settings, max_waiting, warm_up)
    server = DrainingServer(service, settings)
    thread = threading.Thread(
        target=asyncio.run, args=[server.serve([listening])], name="server", daemon=True
    )
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", server, thread)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


def wait_until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
