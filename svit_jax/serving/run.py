"""`svit serve`: the server's process, from its socket to its last answer."""

import asyncio
import socket
import time
from types import FrameType

import uvicorn

from data_pipeline.common.errors import UserError
from svit_jax.api import Assistant
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.serving.app import Service, make_service
from svit_jax.serving.settings import KEYS_VARIABLE, ServerSettings, is_loopback
from svit_jax.serving.telemetry import LOGGER
from svit_jax.serving.warming import WarmUp, usual_prompts

_CONNECTIONS = 1024
_SEND_BUFFER = 128 * 2**10
_LAST_WORDS_SECONDS = 5
"""For the answers that the end of draining breaks off to say so."""


def serve(
    assistant: Assistant,
    engine: ContinuousEngine,
    settings: ServerSettings,
    max_waiting: int,
    listening: socket.socket,
    warm_up_tokens: int,
) -> None:
    """Serves at the socket until SIGTERM or SIGINT, then answers what it has taken, within the
    limit of `drain_seconds`; a second signal ends it at once. It is ready once the programs for
    prompts of up to `warm_up_tokens` tokens of text are compiled. Raises UserError where another
    process listens by now."""
    if not settings.access.keys and not is_loopback(settings.host):
        LOGGER.warning(f"anyone who reaches {settings.host} may ask: set {KEYS_VARIABLE}")
    vision, longest = assistant.bundle.model.vision, engine.max_length
    prompts = usual_prompts(warm_up_tokens, vision.patches, vision.image_size, longest)
    warm_up = WarmUp(engine, prompts, LOGGER.info)
    service = make_service(assistant, engine, settings, max_waiting, warm_up)
    try:
        # Of two processes that hold the address and load, the second hears of it here.
        listening.listen()
    except OSError as error:
        engine.close(drain=False)
        raise _unusable(settings, error) from None
    address = listening.getsockname()
    where = f"[{address[0]}]" if ":" in address[0] else address[0]
    names = ", ".join((settings.model, *assistant.adapted))
    LOGGER.info(f"{names}: served at http://{where}:{address[1]}/v1")
    warm_up.start()
    try:
        asyncio.run(DrainingServer(service, settings).serve([listening]))
    finally:
        engine.close(drain=False)


def listen(settings: ServerSettings) -> socket.socket:
    """A socket at the settings' address, whose connections are dropped by the kernel when their
    reader takes nothing for too long. Raises UserError where the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these. The server can't see into the kernel's buffers.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            patience = int(1000 * settings.limits.send_seconds)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        listening.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise _unusable(settings, error) from None
    return listening


def _unusable(settings: ServerSettings, error: Exception) -> UserError:
    return UserError(
        f"{settings.host} port {settings.port} can't be served ({error}); choose another --host or "
        "--port."
    )


class DrainingServer(uvicorn.Server):
    """A server that on its first signal goes on to listen, refuses what is new with 503, and ends
    once what it has taken is answered or `drain_seconds` have passed."""

    def __init__(self, service: Service, settings: ServerSettings):
        super().__init__(
            uvicorn.Config(
                service.app,
                lifespan="off",
                ws="none",
                http="h11",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=settings.behind_proxy,
                forwarded_allow_ips="127.0.0.1,::1",
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_LAST_WORDS_SECONDS,
            )
        )
        self.service, self._settings = service, settings
        self._deadline = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.admission.draining:
            super().handle_exit(sig, frame)
        else:
            self.drain()

    def drain(self) -> None:
        self._deadline = time.monotonic() + self._settings.limits.drain_seconds
        self.service.admission.draining = True

    async def on_tick(self, counter: int) -> bool:
        late = time.monotonic() >= self._deadline
        if self.service.admission.draining and (late or not self.service.admission.inside):
            self.service.chat.cancel_all()
            self.should_exit = True
        return await super().on_tick(counter)
