"""From the messages of a request to turns and picture files, as the model's template takes them."""

import base64
import binascii
import dataclasses
import math
from collections.abc import Sequence

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import BadRecordError
from data_pipeline.images.transforms import picture_size
from svit_jax.serving.errors import ApiError
from svit_jax.serving.schema import (
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    UserMessage,
)
from svit_jax.serving.settings import Limits


@dataclasses.dataclass(frozen=True)
class Picture:
    """The address of a picture, and the parameter that it stands in."""

    url: str
    param: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns that end with the human's; `<image>` marks the place of each picture."""

    turns: list[Turn]
    pictures: list[Picture]
    system: str | None


def read_conversation(messages: Sequence[Message], limits: Limits) -> Conversation:
    """The template writes one system message, then the user and the assistant by turns; a message's
    pictures come before its text, as in training. Raises ApiError for anything else."""
    system = None
    rest = list(messages)
    first = 0
    if isinstance(rest[0], SystemMessage):
        system = _text(rest.pop(0))
        first = 1
    turns: list[Turn] = []
    pictures: list[Picture] = []
    for number, message in enumerate(rest, first):
        expected = "assistant" if len(turns) % 2 else "user"
        if message.role != expected:
            raise ApiError(
                400,
                f"messages[{number}] is from {message.role}, expected {expected}: the model takes "
                "a system message at most, then user and assistant by turns.",
                "invalid_value",
                f"messages[{number}].role",
            )
        if isinstance(message, UserMessage):
            shown = _pictures(message, f"messages[{number}].content")
            pictures += shown
            turns.append(Turn("human", f"{IMAGE_MARKER}\n" * len(shown) + _text(message)))
        else:
            turns.append(Turn("gpt", _text(message)))
    if len(turns) % 2 == 0:
        raise ApiError(400, "The last message must be the user's.", "invalid_value", "messages")
    if len(pictures) > limits.pictures:
        raise ApiError(
            400,
            f"The messages hold {len(pictures)} pictures; {limits.pictures} is the most.",
            "too_many_pictures",
            "messages",
        )
    _refuse_markers(messages, bool(pictures))
    return Conversation(turns, pictures, system)


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _pictures(message: UserMessage, param: str) -> list[Picture]:
    if isinstance(message.content, str):
        return []
    return [
        Picture(part.image_url.url, f"{param}[{number}].image_url.url")
        for number, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]


def _refuse_markers(messages: Sequence[Message], has_picture: bool) -> None:
    """Text that reads "<image>" would take a picture's place."""
    for number, message in enumerate(messages):
        if has_picture and isinstance(message, UserMessage) and IMAGE_MARKER in _text(message):
            raise ApiError(
                400,
                f"The text of messages[{number}] holds {IMAGE_MARKER}, which stands for a picture; "
                "leave it out: pictures come before their message's text by themselves.",
                "invalid_value",
                f"messages[{number}].content",
            )


def decode_data_url(picture: Picture) -> bytes:
    """The file in a data URL. Raises ApiError where there is none."""
    head, comma, data = picture.url.partition(",")
    # Bytes that are no picture are found out by what they are, not by what they are called.
    if not comma or not head.endswith(";base64"):
        raise _bad(picture, "is not a data URL of the form data:image/png;base64,...")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(picture, f"is not base64 ({error})") from None


def check_picture(picture: Picture, data: bytes, limits: Limits) -> None:
    """Raises ApiError for a file that is no picture, or a larger one than the limit; by what its
    header claims, before a pixel is decoded."""
    try:
        width, height = picture_size(data, picture.param)
    except BadRecordError as error:
        raise ApiError(400, str(error), "invalid_image", picture.param) from None
    if max(width, height) ** 2 > limits.picture_pixels:
        side = math.isqrt(limits.picture_pixels)
        raise _bad(picture, f"is of {width}x{height} pixels; scale it down to {side} a side")


def _bad(picture: Picture, what: str) -> ApiError:
    return ApiError(400, f"{picture.param} {what}.", "invalid_image", picture.param)
