"""`/openapi.json`: the server's own description of what it takes and gives."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pydantic
from pydantic.json_schema import models_json_schema

from svit_jax.serving import replies
from svit_jax.serving.schema import ChatRequest
from svit_jax.serving.settings import ServerSettings, guarded

_REPLIES: list[type[pydantic.BaseModel]] = [
    replies.ChatCompletion,
    replies.ChatChunk,
    replies.Model,
    replies.ModelList,
    replies.ErrorReply,
    replies.State,
]


_MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}


def description(settings: ServerSettings, models: Sequence[str]) -> dict[str, Any]:
    """The server of these models as an OpenAPI 3.1 document."""
    _, made = models_json_schema(
        [(ChatRequest, "validation"), *((reply, "serialization") for reply in _REPLIES)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = made["$defs"]
    asked = schemas[ChatRequest.__name__]["properties"]
    asked["model"] = {"type": "string", "enum": list(models)}
    for name in ("max_tokens", "max_completion_tokens"):
        asked[name]["anyOf"][0]["maximum"] = settings.limits.new_tokens
    paths = {
        "/v1/chat/completions": {"post": _chat()},
        "/v1/models": {"get": _get("The models that answer", _json(replies.ModelList))},
        "/v1/models/{model}": {
            "get": _get("One model", _json(replies.Model), 404) | {"parameters": [_MODEL]}
        },
        "/health": {"get": _state("Whether the process lives")},
        "/ready": {"get": _state("Whether requests are taken")},
        "/metrics": {"get": _get("Figures for Prometheus", _text("text/plain"))},
        "/openapi.json": {"get": _get("This document", {"application/json": {}})},
        "/": {"get": _get("A page to talk with the model", _text("text/html"))},
    }
    for path, operations in paths.items():
        for operation in operations.values():
            if guarded(path) and settings.access.keys:
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = _error(401, "WWW-Authenticate")
    keys = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "svit serve", "version": version("svit-jax")},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": keys}},
    }


def _chat() -> dict[str, Any]:
    held = {"anyOf": [_reference(replies.ChatChunk), _reference(replies.ErrorReply)]}
    some_json = {"type": "string", "contentMediaType": "application/json", "contentSchema": held}
    an_event = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, some_json]}},
        "description": "Each event holds a chunk, or why the answer breaks off; the last [DONE].",
    }
    content = _json(replies.ChatCompletion) | {"text/event-stream": {"schema": an_event}}
    responses = {
        "200": {
            "description": "The answer; with stream, as server-sent events",
            "content": content,
        },
        **{str(status): _error(status) for status in (400, 403, 404, 408, 413, 415, 500, 503)},
        "429": _error(429, "Retry-After"),
    }
    return {
        "summary": "The next message of a conversation",
        "requestBody": {"required": True, "content": _json(ChatRequest)},
        "responses": responses,
    }


def _get(summary: str, content: dict[str, Any], *refused: int) -> dict[str, Any]:
    answered = {"description": summary, "content": content}
    refusals = {str(status): _error(status) for status in (403, *refused)}
    return {"summary": summary, "responses": {"200": answered, **refusals}}


def _state(summary: str) -> dict[str, Any]:
    """How things stand, whatever the status says of it."""
    operation = _get(summary, _json(replies.State))
    operation["responses"]["503"] = operation["responses"]["200"]
    return operation


def _error(status: int, *headers: str) -> dict[str, Any]:
    found = {name: {"required": True, "schema": {"type": "string"}} for name in headers}
    return {
        "description": f"Refused: {status}",
        "content": _json(replies.ErrorReply),
        **({"headers": found} if found else {}),
    }


def _json(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _text(kind: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}}}


def _reference(model: type[pydantic.BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
