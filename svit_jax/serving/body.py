"""The body of a request, of bounded size and time; and whether its sender still waits."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from svit_jax.serving.errors import ApiError, GoneError
from svit_jax.serving.settings import Limits

T = TypeVar("T")

_THROWN_AWAY = 4
"""So many times the limit are read and thrown away, for a sender that listens only afterwards."""


async def read_json_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """Raises ApiError for a body that is no JSON by its type, too large or too slow."""
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    # A page of another origin can't send this type without being asked for leave first.
    if kind != "application/json":
        raise ApiError(415, "Send JSON, as Content-Type: application/json.", "wrong_content_type")
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read(receive, limits.body_bytes)
    except TimeoutError:
        raise ApiError(
            408,
            f"The body took more than {limits.body_seconds:g} seconds.",
            "body_too_slow",
            headers={"Connection": "close"},
        ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more and size <= _THROWN_AWAY * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError("client_left")
        piece = message.get("body", b"")
        size += len(piece)
        more = message.get("more_body", False)
        if size > limit:
            pieces.clear()
        else:
            pieces.append(piece)
    if size > limit:
        raise ApiError(
            413,
            f"The body is larger than {limit} bytes; send smaller pictures, or fewer.",
            "body_too_large",
            headers={"Connection": "close"} if more else None,
        )
    return b"".join(pieces)


async def while_there(work: Coroutine[None, None, T], receive: Receive) -> T:
    """What the work gives. Where the client leaves before, it is cancelled and GoneError raised."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise GoneError("client_left")
    finally:
        for task in (doing, watching):
            task.cancel()
        # What the work cleans up belongs to this request still.
        await asyncio.wait({doing, watching})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
