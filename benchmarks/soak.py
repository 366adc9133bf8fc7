"""An hour's worth of requests to a real `svit serve`: does what it takes stay bounded?

    python benchmarks/soak.py --out benchmarks/results

Bounded in count, not in time: 3,600 requests, one a second for an hour, as fast as eight clients
get their answers. A small model with random weights; requests of every kind, some of which are
wrong, too large, broken off, or from clients that leave or don't read. Memory, threads and open
files of the server's process are read whenever a block of requests has ended.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record

CLIENTS, REQUESTS, BLOCKS = 8, 3600, 12
BODY_BYTES, CACHE_BYTES = 256 * 2**10, 64 * 2**10
MODEL = "soak-" + "m" * 16_000
"""So long that a streamed answer, which holds it with each token, passes the socket's buffers."""
GROWTH_MIB = 16
"""What the memory may grow by after the first third: each request's body is 16 KiB of a name and,
in a quarter of them, a picture. If the 2,400 that follow left theirs behind, it would be 45 MiB."""
CHAT = "/v1/chat/completions"
TEXTS = [
    f"USER: Where is the {thing}? ASSISTANT: The {thing} is at [0.125, 0.5, 0.75, 0.{n}]."
    for thing in ("cat", "dog", "red ball")
    for n in range(10, 40)
]


def make_workdir(folder: Path) -> Path:
    """A checkpoint of random parameters that `svit serve` takes."""
    import jax
    import numpy as np

    from data_pipeline.text.tokenizer import train_tokenizer
    from svit_jax.checkpoints.bundle import write_bundle
    from svit_jax.checkpoints.manager import Checkpoints
    from svit_jax.config import default_config, model_config
    from svit_jax.models.parameters import flat_parameters
    from svit_jax.models.svit import initial_model

    model = model_config(default_config("tiny").model.to_dict())
    train_tokenizer(TEXTS, folder / "t.model", 320)
    workdir = folder / "soak"
    write_bundle(workdir, model, "v1", "pad", folder / "t.model")
    checkpoints = Checkpoints(workdir / "checkpoints")
    parameters = flat_parameters(jax.jit(lambda: initial_model(model, 0))())
    checkpoints.save(0, parameters, {"count": np.zeros(())}, {})
    checkpoints.wait()
    return workdir


class Server:
    """The process, its address, and what it takes."""

    def __init__(self, workdir: Path, log: Path):
        command = [
            *(sys.executable, "-m", "svit_jax.cli", "serve", "--checkpoint", str(workdir)),
            *("--port", "0", "--model-name", MODEL, "--rows", str(CLIENTS)),
            *("--max-length", "1024", "--body-bytes", str(BODY_BYTES), "--body-seconds", "2"),
            *("--send-seconds", "2", "--picture-cache-bytes", str(CACHE_BYTES), "--warm-up", "128"),
        ]
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file)
        self.port = int(self._wait_for(self._address)[1])
        self._wait_for(lambda: self.get("/ready")[0] == 200)

    def _address(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self._log.read_text()
        return re.search(r"served at http://127.0.0.1:(\d+)/", self._log.read_text())

    def _wait_for(self, condition: Callable[[], Any]) -> Any:
        for _ in range(3000):
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError("the server did not get as far in five minutes")

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        ) as opened:
            yield opened

    def get(self, path: str) -> tuple[int, bytes]:
        with self.connection() as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def figures(self) -> dict[str, float]:
        """Prometheus' figures that have no labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        pairs = (line.split(" ") for line in lines if line[:1] != "#" and "{" not in line)
        return {name: float(value) for name, value in pairs}

    def idle(self) -> dict[str, Any]:
        """What the process takes once nobody is answered."""
        self._wait_for(
            lambda: all(json.loads(self.get("/ready")[1])[n] == 0 for n in ("running", "waiting"))
        )
        place = Path(f"/proc/{self.process.pid}")
        # The request that reads the figures is one of the open files.
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        return {
            "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
            "threads": int(status["Threads"]),
            "files": self._settled_files(place / "fd"),
            "picture_cache_bytes": int(self.figures()["svit_picture_cache_bytes"]),
        }

    def _settled_files(self, folder: Path) -> int:
        """The least of a few looks: connections that have ended take a moment to be closed."""
        counts = []
        for _ in range(20):
            counts.append(len(list(folder.iterdir())))
            time.sleep(0.05)
        return min(counts)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Clients:
    """Requests of every kind; each gives the status that it got, or what became of it."""

    def __init__(self, server: Server, seed: int = 0):
        self._server = server
        self._random = random.Random(f"{seed}/soak")
        self._lock = threading.Lock()
        self._pictures = [self._picture() for _ in range(4)]
        self.kinds: dict[str, tuple[float, Callable[[], str], set[str]]] = {
            "text": (25, self.text, {"200"}),
            "streamed text": (20, self.streamed, {"200"}),
            "a picture seen before": (15, self.seen_picture, {"200"}),
            "a new picture": (12, self.new_picture, {"200"}),
            "the client leaves midway": (10, self.leaves, {"left"}),
            "a wrong parameter": (5, self.wrong, {"400"}),
            "a damaged picture": (5, self.damaged, {"400"}),
            "a body that is too large": (4, self.oversize, {"413"}),
            "half a body, then gone": (3, self.half, {"left"}),
            "a body that stops": (0.5, self.stalls, {"408"}),
            "a reader that takes nothing": (0.5, self.deaf, {"dropped"}),
        }

    def plan(self, count: int) -> list[str]:
        """Kinds in an order of chance, as often as their weights say; each at least once."""
        names = list(self.kinds)
        weights = [self.kinds[name][0] for name in names]
        more = self._random.choices(names, weights, k=count - len(names))
        return self._random.sample(names + more, count)

    def ask(self, kind: str) -> tuple[str, str]:
        return kind, self.kinds[kind][1]()

    def _number(self, most: int) -> int:
        with self._lock:
            return self._random.randrange(most)

    def _picture(self) -> str:
        from PIL import Image

        with self._lock:
            side = self._random.randrange(30, 120)
            pixels = self._random.randbytes(3 * side * side)
        file = io.BytesIO()
        Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def _body(self, picture: str | None = None, **more: Any) -> bytes:
        text = {"type": "text", "text": f"Where is the cat? {'And the dog? ' * self._number(6)}"}
        content: list[Any] = [text]
        if picture is not None:
            url = f"data:image/png;base64,{picture}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        limit = {"max_tokens": 4 + self._number(28)}
        messages = [{"role": "user", "content": content}]
        return json.dumps({"model": MODEL, "messages": messages, **limit, **more}).encode()

    def _status(self, body: bytes) -> str:
        with self._server.connection() as connection:
            connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            return str(reply.status)

    def text(self) -> str:
        return self._status(self._body())

    def seen_picture(self) -> str:
        return self._status(self._body(self._pictures[self._number(len(self._pictures))]))

    def new_picture(self) -> str:
        return self._status(self._body(self._picture()))

    def wrong(self) -> str:
        return self._status(self._body(temperature=-1))

    def damaged(self) -> str:
        return self._status(self._body(self._picture()[:200]))

    def oversize(self) -> str:
        return self._status(b" " * (BODY_BYTES + 1 + self._number(BODY_BYTES)))

    def streamed(self) -> str:
        with self._server.connection() as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", CHAT, self._body(stream=True), headers)
            reply = connection.getresponse()
            whole = reply.read().endswith(b"data: [DONE]\n\n")
            return str(reply.status) if whole else "broken off"

    def _open(self, body: bytes, sent: int) -> socket.socket:
        """A connection over which so many bytes of the body have gone."""
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(120)
        client.connect(("127.0.0.1", self._server.port))
        client.sendall(head.encode() + body[:sent])
        return client

    def leaves(self) -> str:
        body = self._body(stream=True, max_tokens=200)
        with contextlib.closing(self._open(body, len(body))) as client:
            client.recv(2000)
        return "left"

    def half(self) -> str:
        body = self._body(self._pictures[0])
        with contextlib.closing(self._open(body, len(body) // 2)):
            return "left"

    def stalls(self) -> str:
        body = self._body()
        with contextlib.closing(self._open(body, len(body) - 1)) as client:
            return client.recv(100).split()[1].decode()

    def deaf(self) -> str:
        """Reads nothing for longer than the server waits; then only what the buffers held comes."""
        body = self._body(stream=True, max_tokens=300, temperature=0)
        with contextlib.closing(self._open(body, len(body))) as client:
            time.sleep(5)
            received = b""
            with contextlib.suppress(OSError):
                while piece := client.recv(2**16):
                    received += piece
        return "answered" if b"[DONE]" in received else "dropped"


def soak(requests: int = REQUESTS, blocks: int = BLOCKS) -> dict[str, Any]:
    """What came of so many requests, and what the server took after each block of them."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(make_workdir(Path(folder)), Path(folder) / "log")
        try:
            clients = Clients(server)
            plan = clients.plan(requests)
            became: collections.Counter[tuple[str, str]] = collections.Counter()
            samples = [server.idle()]
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                for block in range(blocks):
                    became.update(pool.map(clients.ask, plan[block::blocks]))
                    samples.append(server.idle())
            seconds = time.monotonic() - start
            log = (Path(folder) / "log").read_text()
            code = server.end()
        finally:
            server.process.kill()
    unexpected = {
        f"{kind}: {found}": count
        for (kind, found), count in became.items()
        if found not in clients.kinds[kind][2]
    }
    lines = [json.loads(line) for line in log.splitlines()]
    errors = collections.Counter(line["error"] for line in lines if line.get("error"))
    return {
        "requests": sum(became.values()),
        "kinds": {kind: sum(n for (k, _), n in became.items() if k == kind) for kind, _ in became},
        "unexpected": unexpected,
        "errors_in_log": dict(errors),
        "failures_in_log": sum(line.get("status") == 500 or "traceback" in line for line in lines),
        "seconds": round(seconds, 1),
        "rss_growth_mib": round(samples[-1]["rss_mib"] - samples[blocks // 3]["rss_mib"], 1),
        "rss_growth_allowed_mib": GROWTH_MIB,
        "exit_code": code,
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for soak.json")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    result = {**soak(given.requests), "machine": machine()}
    print(json.dumps(result, indent=1))
    record(result, given.out, "soak")


if __name__ == "__main__":
    main()
