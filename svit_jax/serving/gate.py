"""The door: each request gets an id, is let in or refused, answered in time, counted, logged."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from svit_jax.serving.errors import ApiError, GoneError, overloaded, shutting_down
from svit_jax.serving.settings import ServerSettings, guarded
from svit_jax.serving.telemetry import LOGGER, Metrics, Record

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES = ("/health", "/ready", "/metrics")
_GONE = 499
"""nginx's status for a client that left before it was answered."""


class Admission:
    """At most `most` chat completions at a time, from their body's first byte on, so that what
    waits for its turn takes a bounded part of memory. While `draining`, none."""

    def __init__(self, most: int):
        self._most = most
        self.inside = 0
        self.draining = False

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Raises ApiError where there is no place."""
        if self.draining:
            raise shutting_down()
        if self.inside >= self._most:
            raise overloaded("Too many requests are being answered already; ask again in a moment.")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class Gate:
    """The ASGI application that the server runs, around the one with the routes."""

    def __init__(self, router: Router, settings: ServerSettings, metrics: Metrics):
        self._router, self._settings, self._metrics = router, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        record = Record(
            given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
            (scope.get("client") or ["unknown"])[0],
            scope["method"],
            scope["path"],
        )
        # Routers that stand alone answer in plain text; within an application they raise.
        scope = {**scope, "app": self, "state": {"record": record}}
        reply = self._sender(record, send)
        try:
            self._let_in(headers, record)
            await self._router(scope, receive, reply)
        except ApiError as error:
            record.error = error.code or "error"
            await self._refuse(error, scope, receive, reply, record)
        except HTTPException as error:
            record.error = "not_found" if error.status_code == 404 else "method_not_allowed"
            refusal = ApiError(
                error.status_code,
                f"{record.method} {record.path}: {error.detail}.",
                record.error,
                headers=error.headers,
            )
            await self._refuse(refusal, scope, receive, reply, record)
        except GoneError as error:
            record.error = str(error)
            record.status = record.status or _GONE
        except Exception:
            record.error = "internal_error"
            LOGGER.exception({"request": record.id, "message": "a request failed"})
            text = f"The server failed at this request; its log says more under {record.id}."
            refusal = ApiError(500, text, record.error)
            await self._refuse(refusal, scope, receive, reply, record)
        finally:
            self._metrics.ended(record, self._route(scope))
            routine = record.path in _PROBES and record.error is None
            LOGGER.log(logging.DEBUG if routine else logging.INFO, record.line())

    def _route(self, scope: Scope) -> str:
        """The path of the route, so that no client makes up names of figures."""
        routes = (route for route in self._router.routes if isinstance(route, Route))
        fits = (route.path for route in routes if route.matches(scope)[0] != Match.NONE)
        return next(fits, "other")

    def _let_in(self, headers: Headers, record: Record) -> None:
        access = self._settings.access
        host = None
        with contextlib.suppress(ValueError):
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        if access.hosts and host not in access.hosts:
            raise ApiError(
                403, "This server does not answer to the name it was called by.", "wrong_host"
            )
        if not access.keys or not guarded(record.path):
            return
        kind, _, key = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        # All are compared, each in constant time: how long it takes tells nothing.
        found = [hmac.compare_digest(digest, known) for known in access.keys]
        if kind.lower() != "bearer" or not any(found):
            raise ApiError(
                401,
                "A valid API key is needed: send it as Authorization: Bearer KEY.",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        record.client = f"key:{digest.hex()[:8]}"

    def _sender(self, record: Record, send: Send) -> Send:
        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = record.id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            record.bytes_sent += len(message.get("body", b""))
            try:
                async with asyncio.timeout(self._settings.limits.send_seconds):
                    await send(message)
            except TimeoutError:
                raise GoneError("slow_reader") from None

        return reply

    async def _refuse(
        self, error: ApiError, scope: Scope, receive: Receive, reply: Send, record: Record
    ) -> None:
        if not record.status:
            with contextlib.suppress(GoneError):
                await error.response()(scope, receive, reply)
