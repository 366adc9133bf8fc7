"""The whole of the server but uvicorn, called as uvicorn calls it, which is quicker; for hostile
requests, in tests and under a fuzzer."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterator

from served import SETTINGS

from svit_jax.serving.app import make_service

Ask = Callable[..., tuple[int, bytes]]


@contextlib.contextmanager
def answering(assistant, engine) -> Iterator[Ask]:
    """Gives a function from a body (and headers) to the status and body of its answer."""
    app = make_service(assistant, engine, SETTINGS, 8).app

    async def call(body: bytes, headers) -> tuple[int, bytes]:
        sent = []
        done = asyncio.Event()
        pieces = [{"type": "http.request", "body": body}]

        async def receive():
            if pieces:
                return pieces.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "client": ("127.0.0.1", 1),
            "headers": [(b"content-type", b"application/json"), *headers],
        }
        await app(scope, receive, send)
        done.set()
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    with asyncio.Runner() as runner:
        yield lambda body, headers=(): runner.run(call(body, headers))


def check(answer: tuple[int, bytes]) -> int:
    """Any answer that is no failure of the server's; a refusal has OpenAI's shape."""
    status, body = answer
    assert status in (200, 400, 404), body
    if status != 200:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]
        assert error["type"] == "invalid_request_error" and error["code"]
    return status


def as_json(value) -> bytes:
    """NaN and lone surrogates too, which Python's JSON writes."""
    return json.dumps(value).encode()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def about(data: bytes) -> bytes:
    """A question about a picture."""
    part = {"type": "image_url", "image_url": {"url": data_url(data)}}
    return as_json({"model": "tiny", "messages": [{"role": "user", "content": [part]}]})
