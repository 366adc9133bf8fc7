"""What a server shows of itself: a line of JSON for each request, and Prometheus' figures."""

import dataclasses
import datetime
import json
import logging
import sys
import time
import warnings
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from svit_jax.inference.continuous import ContinuousEngine

LOGGER = logging.getLogger("svit_jax.serving")

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


@dataclasses.dataclass
class Record:
    """One request as it goes by: what its line in the log says. Words of its sender's or of the
    model stand in `contents` alone."""

    id: str
    client: str
    method: str
    path: str
    began: float = dataclasses.field(default_factory=time.monotonic)
    status: int = 0
    bytes_sent: int = 0
    error: str | None = None
    answer: dict[str, Any] = dataclasses.field(default_factory=dict)
    contents: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def line(self) -> dict[str, Any]:
        fields = {
            "request": self.id,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "bytes": self.bytes_sent,
            "error": self.error,
        }
        return {**fields, **self.answer, **self.contents}


class JsonLines(logging.Formatter):
    """Each record as an object on a line of its own; a mapping as message gives its fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = record.msg if isinstance(record.msg, dict) else {"message": record.getMessage()}
        entry = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **fields,
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def log_to_stderr() -> None:
    """Lines of JSON on standard error: the server's, uvicorn's and the warnings of all others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    # Each has words of the picture in it, and Python keeps all texts that it has warned of.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in (LOGGER.name, "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, engine: ContinuousEngine):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "svit_requests",
            "Requests that have ended, by path, status and error",
            ["path", "status", "error"],
            registry=self.registry,
        )
        self._seconds = self._histogram("svit_request_seconds", "Time a chat completion took")
        self._first = self._histogram(
            "svit_first_token_seconds", "Time until the first text of a chat completion"
        )
        self._tokens = Counter(
            "svit_tokens",
            "Tokens of chat completions, read (prompt) and made (completion), by model",
            ["kind", "model"],
            registry=self.registry,
        )
        for name, text, count in (
            ("svit_running", "Requests that decode now", engine.running),
            ("svit_waiting", "Requests that wait for a row", engine.waiting),
            ("svit_picture_cache_bytes", "Features of pictures kept", engine.picture_bytes),
        ):
            Gauge(name, text, registry=self.registry).set_function(count)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["model"], buckets=_SECONDS, registry=self.registry)

    def ended(self, record: Record, route: str) -> None:
        """Counts a request."""
        self._requests.labels(route, str(record.status), record.error or "").inc()
        answer = record.answer
        if "prompt_tokens" in answer:
            model = answer["model"]
            self._seconds.labels(model).observe(record.seconds)
            self._tokens.labels("prompt", model).inc(answer["prompt_tokens"])
            self._tokens.labels("completion", model).inc(answer.get("completion_tokens", 0))
            if "first_token_seconds" in answer:
                self._first.labels(model).observe(answer["first_token_seconds"])
