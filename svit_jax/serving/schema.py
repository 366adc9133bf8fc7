"""What may be asked of `/v1/chat/completions`, by OpenAI's names; all else is an error."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError, core_schema

from svit_jax.serving.errors import wrong_request


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Only:
    """Marks a parameter that OpenAI knows and that changes nothing here: these values or null."""

    def __init__(self, *values: Any):
        self._values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": [None, *self._values]}

    def _check(self, found: Any) -> Any:
        # True is no 1, as in JSON.
        if found is None or any(
            found == value and isinstance(found, bool) == isinstance(value, bool)
            for value in self._values
        ):
            return found
        shown = " or ".join(map(repr, self._values)) or "null"
        raise PydanticCustomError("unsupported", "only {shown} is supported", {"shown": shown})


def _whole(value: Any) -> Any:
    """1.0 is an integer in JSON, which knows numbers alone."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = pydantic.BeforeValidator(_whole)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """`url` is a data URL, or an address of a host that the server may fetch from. Every picture
    has one resolution, whatever `detail` asks for."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Text = str | Annotated[list[TextPart], Field(min_length=1)]


class SystemMessage(_Strict):
    role: Literal["system", "developer"]
    content: Text
    name: str | None = None


class UserMessage(_Strict):
    role: Literal["user"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None


class AssistantMessage(_Strict):
    """As an answer was given: what answers never hold here must be empty."""

    role: Literal["assistant"]
    content: Text
    name: str | None = None
    annotations: Annotated[Any, _Only([])] = None
    audio: Annotated[Any, _Only()] = None
    function_call: Annotated[Any, _Only()] = None
    refusal: Annotated[Any, _Only()] = None
    tool_calls: Annotated[Any, _Only([])] = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, _Only(False)] = None


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(_Strict):
    """A conversation, and how its next message is to be made."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1), _WHOLE] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1), _WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1), _WHOLE] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), _WHOLE] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Any, _Only(0)] = None
    # Words about the request, which change no answer.
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: Annotated[Any, _Only(False)] = None
    service_tier: Annotated[Any, _Only("auto", "default")] = None
    # What OpenAI's models can and this one can't.
    n: Annotated[Any, _Only(1)] = None
    frequency_penalty: Annotated[Any, _Only(0)] = None
    presence_penalty: Annotated[Any, _Only(0)] = None
    logit_bias: Annotated[Any, _Only({})] = None
    response_format: Annotated[Any, _Only({"type": "text"})] = None
    modalities: Annotated[Any, _Only(["text"])] = None
    audio: Annotated[Any, _Only()] = None
    functions: Annotated[Any, _Only([])] = None
    function_call: Annotated[Any, _Only("none", "auto")] = None
    tools: Annotated[Any, _Only([])] = None
    tool_choice: Annotated[Any, _Only("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, _Only(True, False)] = None
    prediction: Annotated[Any, _Only()] = None
    reasoning_effort: Annotated[Any, _Only("none")] = None
    verbosity: Annotated[Any, _Only("medium")] = None
    web_search_options: Annotated[Any, _Only()] = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


def read_request(body: bytes) -> ChatRequest:
    """Raises ApiError where the body is no such request, naming the parameter."""
    try:
        return ChatRequest.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise wrong_request(error, body, list(ChatRequest.model_fields)) from None
