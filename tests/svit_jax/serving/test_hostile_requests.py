"""Requests that nobody would send in good faith: whatever comes, an answer or a reason, no crash.

The whole of the server but uvicorn, called as uvicorn calls it, which is quicker.
"""

import random
import zlib

import pytest
from hostile_pictures import hostile_files, png, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import about, answering, as_json, check, data_url
from served import ScriptedEngine

FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=5000)

PICTURES = [
    *(saved("PNG"), saved("JPEG"), saved("GIF", frames=2), saved("WEBP", lossless=True)),
    *(saved("BMP"), saved("MPO", frames=2), saved("JPEG", progressive=True)),
    png(600, 600, zlib.compress(bytes(600 * 1801), 9)),
]


@pytest.fixture(scope="module")
def ask(tiny_assistant):
    """Status and body of the answer to one body."""
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red"))
    with answering(tiny_assistant, engine) as ask:
        yield ask
    assert engine.broken is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def nested(depth: int) -> list:
    """[[[...]]]"""
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


NAMES = (
    *("temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop", "n", "user"),
    *("max_tokens", "max_completion_tokens", "stream", "stream_options", "logprobs"),
    *("top_logprobs", "tools", "response_format", "logit_bias", "metadata"),
)

PLAUSIBLE = (
    ANYTHING
    | st.sampled_from([0, 1, -1, 0.5, 1e-45, 1e308, 2**31, 2**64, "", "red", [], ["a"], {}])
    | st.text(st.characters(codec=None), max_size=20)
    | st.integers(300, 3000).map(lambda digits: 10**digits)
    | st.integers(1, 400).map(nested)
)

URLS = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda data, seed: damaged(data_url(data).encode(), seed).decode("latin-1"),
        st.sampled_from(PICTURES[:4]),
        st.integers(),
    ),
    st.binary(max_size=60).map(lambda data: data_url(data)),
    st.builds(
        lambda data, seed: data_url(damaged(data, seed)), st.sampled_from(PICTURES), st.integers()
    ),
)

PARTS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": PLAUSIBLE})
    | st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": URLS})}
    )
    | ANYTHING,
    max_size=3,
)

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "user", "assistant", "system", "tool"]),
            "content": st.text(max_size=30) | PARTS | ANYTHING,
        },
        optional={"name": PLAUSIBLE, "tool_calls": PLAUSIBLE},
    ),
    max_size=4,
)

REQUESTS = st.builds(
    lambda messages, more: {"model": "tiny", "messages": messages, **more},
    MESSAGES | ANYTHING,
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), PLAUSIBLE, max_size=3),
)

ORDINARY = st.builds(
    lambda text, more: {"model": "tiny", "messages": [{"role": "user", "content": text}], **more},
    st.text(max_size=60),
    st.dictionaries(st.sampled_from(NAMES), PLAUSIBLE, max_size=2),
)


def damaged(data: bytes, seed: int) -> bytes:
    """Cut, or with a few bytes changed, repeated or taken away."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.randrange(5)):
        place = rng.randrange(len(found)) if found else 0
        change = rng.randrange(4)
        if change == 0:
            found[place : place + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            del found[place:]
        elif change == 2:
            found[place:place] = found[place : place + rng.randrange(20)]
        else:
            del found[place : place + rng.randrange(8)]
    return bytes(found)


def test_what_is_sent_here_would_be_answered(ask):
    """Without this, fuzzing might never get past the first check."""
    for data in PICTURES:
        assert check(ask(about(data))) == 200
    assert check(ask(about(png(40, 30, zlib.compress(b"\0" * 121 * 30))))) == 200


def test_hostile_pictures(ask):
    """What test_transforms finds accepted, less the one past the server's own limit of pixels."""
    found = {name: check(ask(about(data))) for name, data in hostile_files().items()}
    accepted = {name for name, status in found.items() if status == 200}
    assert accepted == {"png with more pixels than it says", "gif of 400 frames"}


@FEW
@given(REQUESTS | ORDINARY)
def test_any_request(ask, request_):
    check(ask(as_json(request_)))


@FEW
@given(st.binary(max_size=200), st.sampled_from(PICTURES), st.integers())
def test_any_bytes_and_any_picture(ask, body, picture, seed):
    assert check(ask(body)) != 200
    check(ask(about(damaged(picture, seed))))


@FEW
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"authorization", b"x-request-id", b"content-length"]),
            st.binary(max_size=30),
        ),
        max_size=3,
    )
)
def test_any_headers(ask, headers):
    check(ask(as_json({"model": "tiny", "messages": [{"role": "user", "content": "?"}]}), headers))


@pytest.mark.slow
@MANY
@given(REQUESTS | ORDINARY)
def test_five_thousand_requests(ask, request_):
    check(ask(as_json(request_)))


@pytest.mark.slow
@MANY
@given(st.binary(max_size=200), st.sampled_from(PICTURES), st.integers())
def test_ten_thousand_bodies_and_pictures(ask, body, picture, seed):
    assert check(ask(body)) != 200
    check(ask(about(damaged(picture, seed))))
