"""Stop strings and streaming, over text that is cut into tokens in every way."""

import codecs
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.common.errors import UserError
from svit_jax.inference.text import Stops, TextStream


def first_stop(text: str, stop: list[str]) -> str:
    """A character at a time, until a stop string stands at the end; before the longest of those."""
    for end in range(1, len(text) + 1):
        ends = [len(s) for s in stop if text[:end].endswith(s)]
        if ends:
            return text[: end - max(ends)]
    return text


def streamed(pieces: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    """What is shown after each token, where token n stands for bytes `pieces[n]`."""
    text = TextStream(Bytes(pieces), Stops(stop))
    shown = []
    for token in range(len(pieces)):
        shown.append(text.push(token))
        if text.stopped:
            return shown, True
    return [*shown, text.finish()], False


class Bytes:
    """Token n stands for bytes `pieces[n]`."""

    def __init__(self, pieces: list[bytes]):
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._pieces[token])

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def test_a_stop_string_over_several_tokens_is_never_shown():
    shown, stopped = streamed([b"A cat", b".\n", b"US", b"ER", b": more"], ["\nUSER:"])
    assert stopped and "".join(shown) == "A cat."
    assert shown[:2] == ["A cat", "."]
    # What only looks like its beginning is shown as soon as that is known.
    shown, stopped = streamed([b"A cat", b"\nUS", b"A", b" won"], ["\nUSER:"])
    assert not stopped and shown == ["A cat", "", "\nUSA", " won", ""]


def test_characters_of_several_bytes_come_whole():
    snowman = "☃".encode()
    shown, _ = streamed([b"a", snowman[:1], snowman[1:2], snowman[2:], b"b"], [])
    assert shown == ["a", "", "", "☃", "b", ""]
    # What is not there yet is no stop string.
    assert "".join(streamed([b"a", snowman[:1], snowman[1:]], ["\ufffd"])[0]) == "a☃"
    # An answer that ends within one shows that something is missing.
    assert "".join(streamed([b"a", snowman[:1]], [])[0]) == "a\ufffd"


def test_the_earliest_of_several_stop_strings_counts():
    stops = Stops(["END", "\n\n", "DE"])
    assert stops.before("one\n\ntwo END") == "one"
    assert stops.before("THE DEED") == "THE "
    assert stops.before("nothing") == "nothing"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="ab \né☃", max_size=14),
    stop=st.lists(st.text(alphabet="ab \né", min_size=1, max_size=3), max_size=2),
    cuts=st.sets(st.integers(1, 20), max_size=8),
)
def test_streamed_pieces_are_the_answer(text, stop, cuts):
    raw = text.encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    shown, stopped = streamed(pieces, stop)
    assert "".join(shown) == first_stop(text, stop).strip()
    assert stopped == any(s in text for s in stop)


@pytest.mark.parametrize("wrong", ["END", [""], ["END", ""]])
def test_stop_strings_that_are_none(wrong):
    with pytest.raises(UserError, match="give a list of strings that are not empty"):
        Stops(wrong)
