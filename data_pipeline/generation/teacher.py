"""Teacher: whoever answers the prompts, be it an endpoint or the offline templates."""

import dataclasses
from typing import Protocol, TypeVar, runtime_checkable

from data_pipeline.annotations.scene import Scene
from data_pipeline.generation.prompt import Prompt


@runtime_checkable
class Question(Protocol):
    """What any teacher can be asked. `key` is what it is called in the journal."""

    @property
    def key(self) -> str: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def seed(self) -> int: ...


Asked = TypeVar("Asked", bound=Question)
Asked_contra = TypeVar("Asked_contra", bound=Question, contravariant=True)


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher: `prompt` is `scene` in words; `seed` makes the answer repeatable
    for teachers that can (it is the run's seed; mix in the scene's id, the kind and `attempt`,
    which counts from 1 how often the same is asked because the answer was of no use)."""

    kind: str
    scene: Scene
    prompt: Prompt
    seed: int
    attempt: int = 1

    @property
    def key(self) -> str:
        """What the request is called in the journal, in the quarantine and in batch files."""
        return request_key(self.scene.image_id, self.kind, self.attempt)


def request_key(image_id: int, kind: str, attempt: int = 1) -> str:
    return f"{image_id}/{kind}" if attempt == 1 else f"{image_id}/{kind}/{attempt}"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens read and written by a teacher; what an endpoint bills."""

    input: int = 0
    output: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input + other.input, self.output + other.output)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input - other.input, self.output - other.output)

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response and the tokens that it took.

    `fault` ("code: detail") says why it can't be used, if that is known without reading it;
    `cut_off` that it ended at the limit of an answer's length.
    """

    text: str
    tokens: Tokens = Tokens()
    fault: str | None = None
    cut_off: bool = False


class TryAgainError(Exception):
    """No answer this time, but the same request may have one later: the endpoint is overloaded, or
    the connection was lost.

    `wait` is how many seconds the endpoint wants to be left alone; `too_fast` tells that it only
    wants to be asked less often; `may_be_billed` that the request may have been worked on.
    """

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        too_fast: bool = False,
        may_be_billed: bool = False,
    ):
        super().__init__(reason)
        self.wait = wait
        self.too_fast = too_fast
        self.may_be_billed = may_be_billed


@runtime_checkable
class Teacher(Protocol[Asked_contra]):
    """Tries once to answer a request; many requests may be under way at the same time.

    Whoever asks (`asking.py`) tries again, keeps to rate limits and to the budget. `name` says
    everything that changes the answers (model, temperature, version): a run that goes on with
    another name than it began with is refused.
    """

    name: str

    def estimate(self, request: Asked_contra) -> Tokens:
        """The likely number of input tokens, and the most output tokens."""
        ...

    def bound(self, request: Asked_contra) -> Tokens:
        """The most tokens that the request can take."""
        ...

    async def answer(self, request: Asked_contra) -> Answer:
        """The response. Raises TryAgainError, BadRecordError ("code: detail") where this request
        will have no answer, and UserError where no request will have one (a wrong key, say)."""
        ...

    async def close(self) -> None:
        """Lets go of connections; `answer` may be called again."""
        ...
