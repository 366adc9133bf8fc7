"""What the server says, by OpenAI's names."""

import json
from typing import Any, Literal

import pydantic

FinishReason = Literal["stop", "length"]
Status = Literal["warming_up", "ready", "draining", "broken"]


class Usage(pydantic.BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(pydantic.BaseModel):
    """A token's text, its bytes, and its log-probability under the model."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[dict[str, Any]] = []


class Logprobs(pydantic.BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class ReplyMessage(pydantic.BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(pydantic.BaseModel):
    index: Literal[0] = 0
    message: ReplyMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(pydantic.BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(pydantic.BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None

    @pydantic.model_serializer
    def _present(self) -> dict[str, str]:
        return {name: value for name, value in self if value is not None}


class ChunkChoice(pydantic.BaseModel):
    index: Literal[0] = 0
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(pydantic.BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Model(pydantic.BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "svit-jax"


class ModelList(pydantic.BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(pydantic.BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(pydantic.BaseModel):
    error: ErrorDetail


class State(pydantic.BaseModel):
    """Whether the server takes requests, how many are answered now and how many wait."""

    status: Status
    running: int
    waiting: int


def event(reply: pydantic.BaseModel) -> bytes:
    """The reply as a server-sent event."""
    return b"data: " + reply.model_dump_json().encode() + b"\n\n"


def error_event(body: dict[str, Any]) -> bytes:
    """An error as a server-sent event: where an answer breaks off."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"
