"""A real HTTP server on loopback that speaks the chat-completions API, and misbehaves as told."""

import asyncio
import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.prompt import load_templates

_KIND_OF = {text.strip(): kind for kind, text in load_templates().items() if kind in KINDS}

USAGE = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}

GOOD = "good"
HTML, HALF_JSON, HALF_BODY, DROPPED = "html", "half json", "half body", "dropped"
CUT, FILTERED, REFUSED, NO_USAGE = "length", "content_filter", "refusal", "no usage"


@dataclasses.dataclass(frozen=True)
class Call:
    """One request as the server got it: `key` from the prompt's words, `time` on arrival."""

    key: str
    time: float
    body: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Error:
    status: int
    code: str = ""
    retry_after: str | None = None


def reply_to(key: str) -> str:
    """A usable response for every kind, another for every picture."""
    number, kind = key.split("/")
    box = "<st>thing<ed> [0.1, 0.2, 0.3, 0.4]"
    return {
        "conversation": f"Topic: it\nUser: What is {number}?\nGPT: It is {number}.",
        "complex_reasoning": f"Question: Why {number}?\nAnswer: Because of {number}.",
        "detail_description": f"Picture {number} shows a thing on a plain table.",
        "referring_qa": f"Question: Where is {box}?\nAnswer: The {box} is left of {number}.",
    }[kind]


class ChatServer:
    """Answers after `latency(key)` seconds with what `behave(key, nth)` says; keeps a log.

    Requests are told apart by what the prompt says: the instructions are the kind's, and the first
    caption is "picture N" (see `captioned` in conftest).
    """

    def __init__(
        self,
        behave: Callable[[str, int], str | Error] = lambda key, nth: GOOD,
        latency: Callable[[str], float] = lambda key: 0.0,
    ):
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._under_way = 0
        self._behave = behave
        self._latency = latency
        self._asked: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def keys(self) -> list[str]:
        return [call.key for call in self.calls]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(
                    line.lower().split(": ", 1)
                    for line in head.decode().split("\r\n")
                    if ": " in line
                )
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                await self._respond(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _respond(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        system, user = (message["content"] for message in body["messages"])
        number = user.split("picture ")[1].split("\n")[0]
        key = f"{number}/{_KIND_OF[system]}"
        self.calls.append(Call(key, time.monotonic(), body))
        self._asked[key] += 1
        behaviour = self._behave(key, self._asked[key])
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        await asyncio.sleep(self._latency(key))
        self._under_way -= 1
        if behaviour == DROPPED:
            raise ConnectionError
        status, headers, payload = (
            200,
            "Content-Type: application/json\r\n",
            _completion(key, behaviour),
        )
        if isinstance(behaviour, Error):
            status = behaviour.status
            error = {"code": behaviour.code, "message": "as the test wants it"}
            payload = json.dumps({"error": error}).encode()
            if behaviour.retry_after is not None:
                headers += f"Retry-After: {behaviour.retry_after}\r\n"
        elif behaviour == HTML:
            headers, payload = "Content-Type: text/html\r\n", b"<html>Bad gateway</html>"
        elif behaviour == HALF_JSON:
            payload = payload[: len(payload) // 2]
        headers += f"Content-Length: {len(payload)}\r\n"
        if behaviour == HALF_BODY:
            payload = payload[: len(payload) // 2]
        writer.write(f"HTTP/1.1 {status} Said\r\n{headers}\r\n".encode() + payload)
        await writer.drain()
        if behaviour == HALF_BODY:
            raise ConnectionError


def _completion(key: str, behaviour: str | Error) -> bytes:
    text = reply_to(key)
    message = {"role": "assistant", "content": text, "refusal": None}
    finish = "stop"
    if behaviour == CUT:
        message["content"], finish = text[: len(text) // 2], "length"
    elif behaviour == FILTERED:
        message["content"], finish = None, "content_filter"
    elif behaviour == REFUSED:
        message["content"], message["refusal"] = None, "I won't."
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if behaviour != NO_USAGE:
        body["usage"] = USAGE
    return json.dumps(body).encode()
