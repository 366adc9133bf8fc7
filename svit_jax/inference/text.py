"""Text out of tokens: whole, or piece by piece as they come; never past a stop string."""

from collections.abc import Callable, Sequence

from data_pipeline.common.errors import UserError

Decode = Callable[[Sequence[int]], str]


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
    returned with it was the last piece.
    """

    def __init__(self, decode: Decode, stops: Stops):
        self._decode, self._stops = decode, stops
        self._tokens: list[int] = []
        self._said = 0
        self.stopped = False

    def push(self, token: int) -> str:
        self._tokens.append(token)
        text = self._decode(self._tokens)
        self.stopped = self._stops.found(text)
        if self.stopped:
            return self.finish()
        # Bytes that are no whole character are decoded as U+FFFD.
        return self._say(self._stops.certain(text.rstrip("\ufffd")))

    def finish(self) -> str:
        return self._say(self._stops.before(self._decode(self._tokens)))

    def _say(self, text: str) -> str:
        text = text.strip()
        new = text[self._said :]
        self._said = len(text)
        return new
