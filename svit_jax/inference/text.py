"""Text out of tokens: whole, or piece by piece as they come; never past a stop string."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from data_pipeline.common.errors import UserError


@runtime_checkable
class Decoder(Protocol):
    """Text out of tokens that come one by one."""

    def push(self, i: int, /) -> str:
        """The text that has become certain with this token."""

    def finish(self) -> str:
        """What is left of it at the end."""


class Stops:
    """Strings that end an answer: it is what stands before the one that is whole first (of those
    that end together, before the longest)."""

    def __init__(self, strings: Sequence[str] = ()):
        if isinstance(strings, str) or not all(strings):
            raise UserError(
                f"stop strings are {strings!r}; give a list of strings that are not empty."
            )
        self.strings = tuple(strings)

    def found(self, text: str) -> bool:
        return any(string in text for string in self.strings)

    def before(self, text: str) -> str:
        """The text before the stop string that ends first, so that it is the same however the text
        comes; all of it where there is none."""
        found = ((text.index(s) + len(s), text.index(s)) for s in self.strings if s in text)
        return text[: min(found, default=(0, len(text)))[1]]

    def certain(self, text: str) -> str:
        """The text less the longest end of it that may be the beginning of a stop string."""
        ends = (size for s in self.strings for size in range(1, len(s)) if text.endswith(s[:size]))
        return text[: len(text) - max(ends, default=0)]


class TextStream:
    """The text of a growing answer, without the space around it.

    `push` and `finish` return what has become certain: joined, all pieces are the answer. Held back
    are characters of which bytes are still to come, space that may be the answer's end, and what
    may be the beginning of a stop string. Once `stopped`, a stop string has come: what `push`
    returned with it was the last piece. A token costs the same however long the answer is.
    """

    def __init__(self, decoder: Decoder, stops: Stops):
        self._decoder, self._stops = decoder, stops
        self._maybe_stop = ""
        self._space: list[str] = []
        self._begun = False
        self.stopped = False

    def push(self, token: int) -> str:
        # A stop string begins in what was held back: had it begun earlier, so had that.
        text = self._maybe_stop + self._decoder.push(token)
        self.stopped = self._stops.found(text)
        certain = self._stops.before(text) if self.stopped else self._stops.certain(text)
        self._maybe_stop = text[len(certain) :]
        return self._stripped(certain)

    def finish(self) -> str:
        return self._stripped(self._stops.before(self._maybe_stop + self._decoder.finish()))

    def _stripped(self, text: str) -> str:
        """The text with the space that was held back before it, less the space at its own end."""
        body = text.rstrip()
        space = text[len(body) :]
        if not body:
            self._space.append(space)
            return ""
        said = "".join([*self._space, body]) if self._begun else body.lstrip()
        self._begun, self._space = True, [space]
        return said
