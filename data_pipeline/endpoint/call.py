"""A call to a language model, its answer, and what answers it."""

import dataclasses
from typing import Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Call(Protocol):
    """One question to a model: `key` is what the journal calls it, `system` the instructions
    ("" for none), `user` the message, `seed` what makes the answer repeatable where a model can."""

    @property
    def key(self) -> str: ...

    @property
    def system(self) -> str: ...

    @property
    def user(self) -> str: ...

    @property
    def seed(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens read and written by a model; what an endpoint bills."""

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
    """No answer this time, but the same call may have one later: the endpoint is overloaded, or
    the connection was lost.

    `wait` is how many seconds the endpoint wants to be left alone; `too_fast` tells that it only
    wants to be asked less often; `may_be_billed` that the call may have been worked on.
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


C = TypeVar("C", bound=Call)
C_contra = TypeVar("C_contra", bound=Call, contravariant=True)


@runtime_checkable
class Model(Protocol[C_contra]):
    """Tries once to answer a call; many may be under way at the same time.

    Whoever asks (`asking.py`) tries again, keeps to rate limits and to the budget. `name` says
    everything that changes the answers (model, temperature, version): a run that goes on with
    another name than it began with is refused.
    """

    name: str

    def estimate(self, call: C_contra, /) -> Tokens:
        """The likely number of input tokens, and the most output tokens."""
        ...

    def bound(self, call: C_contra, /) -> Tokens:
        """The most tokens that the call can take."""
        ...

    async def answer(self, call: C_contra, /) -> Answer:
        """The response. Raises TryAgainError, BadRecordError ("code: detail") where this call will
        have no answer, and UserError where no call will have one (a wrong key, say)."""
        ...

    async def close(self) -> None:
        """Lets go of connections; `answer` may be called again."""
        ...
