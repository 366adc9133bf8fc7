"""Errors as the OpenAI API writes them, and what a wrong request is told."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydantic
import pydantic_core
from starlette.responses import JSONResponse

RETRY_SECONDS = "1"


class ApiError(Exception):
    """A request that gets no answer, and why, for its sender to read."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "")
        return {
            "error": {
                "message": str(self),
                "type": kind or "server_error",
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


class GoneError(Exception):
    """The client left, or reads too slowly: nobody is there to be answered."""


def overloaded(message: str) -> ApiError:
    return ApiError(429, message, "overloaded", headers={"Retry-After": RETRY_SECONDS})


def shutting_down() -> ApiError:
    headers = {"Retry-After": RETRY_SECONDS, "Connection": "close"}
    return ApiError(503, "The server is shutting down; ask again.", "shutting_down", None, headers)


def no_such_model(name: str, known: Iterable[str]) -> ApiError:
    text = f"There is no model {name[:100]!r}; this server has {', '.join(known)}."
    return ApiError(404, text, "model_not_found", "model")


def wrong_request(error: pydantic.ValidationError, body: bytes, known: Sequence[str]) -> ApiError:
    """What is wrong with a body. Of a value that may be one of several kinds, the kind that fits
    furthest is meant: by how deep the fault lies, and whether the value itself is of that kind."""
    details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {details[0]['msg']}.", "invalid_json")
    value = pydantic_core.from_json(body)
    paths = [_path(detail["loc"], value, detail["type"]) for detail in details]
    path, detail = max(
        zip(paths, details, strict=True),
        key=lambda pair: (len(pair[0]), not pair[1]["type"].endswith("_type")),
    )
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    name = name.removeprefix(".")
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, 1)
        advice = f"; did you mean {near[0]}?" if near else "; leave it out."
        return ApiError(400, f"There is no parameter {name}{advice}", "unknown_parameter", name)
    code = "unsupported_value" if detail["type"] == "unsupported" else "invalid_value"
    return ApiError(400, f"{name or 'The body'}: {detail['msg']}.", code, name or None)


def _path(location: Sequence[int | str], value: Any, kind: str) -> list[int | str]:
    """The steps of pydantic's location that lead into the value: it names union members, too."""
    path = []
    for number, step in enumerate(location):
        inside = (
            step in value
            if isinstance(value, dict)
            else isinstance(value, list) and isinstance(step, int) and step < len(value)
        )
        if inside:
            value = value[step]
            path.append(step)
        elif kind == "missing" and number == len(location) - 1:
            path.append(step)
    return path
