"""`/openapi.json`: the server's own description of what it takes and gives."""

from importlib.metadata import version
from typing import Any

import pydantic
from pydantic.json_schema import models_json_schema

from svit_jax.serving import replies
from svit_jax.serving.schema import ChatRequest

_REPLIES: list[type[pydantic.BaseModel]] = [
    replies.ChatCompletion,
    replies.ChatChunk,
    replies.Model,
    replies.ModelList,
    replies.ErrorReply,
    replies.State,
]


def description() -> dict[str, Any]:
    """The server as an OpenAPI 3.1 document."""
    _, schemas = models_json_schema(
        [(ChatRequest, "validation"), *((reply, "serialization") for reply in _REPLIES)],
        ref_template="#/components/schemas/{model}",
    )
    keys = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "svit serve", "version": version("svit-jax")},
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/models": {"get": _get("The models that answer", replies.ModelList)},
            "/v1/models/{model}": {
                "get": _get("One model", replies.Model, 404)
                | {
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "minLength": 1},
                        }
                    ]
                }
            },
            "/health": {"get": _get("Whether the process lives", replies.State, 503)},
            "/ready": {"get": _get("Whether requests are taken", replies.State, 503)},
        },
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"key": keys}},
    }


def _chat() -> dict[str, Any]:
    refused = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    answered = {
        "description": "The answer; with stream, as server-sent events that each hold a chunk",
        "content": {
            "application/json": {"schema": _reference(replies.ChatCompletion)},
            "text/event-stream": {"schema": _reference(replies.ChatChunk)},
        },
    }
    return {
        "summary": "The next message of a conversation",
        "security": [{}, {"key": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _reference(ChatRequest)}},
        },
        "responses": {"200": answered} | {str(status): _error(status) for status in refused},
    }


def _get(summary: str, reply: type[pydantic.BaseModel], *refused: int) -> dict[str, Any]:
    found = {
        "description": summary,
        "content": {"application/json": {"schema": _reference(reply)}},
    }
    # Health and readiness say how things stand, whatever that is.
    others = {
        str(status): found if reply is replies.State else _error(status)
        for status in (401, 403, *refused)
    }
    return {
        "summary": summary,
        "security": [{}, {"key": []}],
        "responses": {"200": found} | others,
    }


def _error(status: int) -> dict[str, Any]:
    schema = {"schema": _reference(replies.ErrorReply)}
    return {"description": f"Refused: {status}", "content": {"application/json": schema}}


def _reference(model: type[pydantic.BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
