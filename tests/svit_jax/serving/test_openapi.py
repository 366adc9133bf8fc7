"""The server does what its OpenAPI document says, as schemathesis asks it: a real server."""

import collections
import dataclasses
import subprocess
import sys

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from served import SETTINGS, ScriptedEngine, serving

from svit_jax.serving.settings import make_access

KEY = "a-key"


def answerable(context, body):
    """A body whose conversation has its roles in order, which no schema can say, and whose pictures
    are none of those that a schema calls strings."""
    if not isinstance(body, dict):
        return body
    found = [message for message in body["messages"] if message["role"] == "user"][:1]
    for message in found:
        if not isinstance(message["content"], str):
            texts = [part for part in message["content"] if part["type"] == "text"]
            message["content"] = texts or "?"
    if None not in (body.get("max_tokens"), body.get("max_completion_tokens")):
        del body["max_tokens"]
    return body | {"messages": found or [{"role": "user", "content": "?"}]}


@pytest.fixture(scope="module")
def described(tiny_assistant, tmp_path_factory):
    """A server that wants a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    access = make_access("127.0.0.1", keys, [], [])
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red or blue ☃."), max_length=4096)
    with serving(tiny_assistant, engine, dataclasses.replace(SETTINGS, access=access)) as served:
        yield served
    assert all(ticket.ended_by for ticket in engine.tickets)


def ask_all(served, mode: GenerationMode, examples: int) -> collections.Counter:
    """How often each status came, of so many cases of every operation; each reply passes all of
    schemathesis' checks that apply to it."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    if mode is GenerationMode.POSITIVE:
        schema.hook("map_body")(answerable)
    else:
        schema = schema.include(method="POST")  # the others take nothing
    statuses = collections.Counter()

    for operation in schema.get_all_operations():
        operation = operation.ok()

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def validate(case):
            reply = case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})
            statuses[case.operation.label, reply.status_code] += 1

        validate()
    return statuses


CHAT_LABEL = "POST /v1/chat/completions"


def check(served, examples: int) -> None:
    valid = ask_all(served, GenerationMode.POSITIVE, examples)
    assert {status for label, status in valid if label == CHAT_LABEL} == {200}
    invalid = ask_all(served, GenerationMode.NEGATIVE, examples)
    # Where the key alone was wrong, the right one took its place: which of the cases had to be
    # refused is for schemathesis' check to say.
    assert {status for _, status in invalid} <= {200, 400, 401, 404, 405, 415}
    assert invalid[CHAT_LABEL, 400] > examples / 4


def test_what_it_calls_valid_is_answered_and_nothing_else(described):
    check(described, 40)


@pytest.mark.slow
def test_more_cases(described):
    check(described, 300)


@pytest.mark.slow
def test_all_that_schemathesis_tries(described, tmp_path):
    """Its own order of things: borders of every parameter, methods that there are none of, requests
    without a key. What no schema says of conversations makes it take refusals for faults, in
    `positive_data_acceptance` alone."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{described.url}/openapi.json"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--phases", "examples,coverage,stateful", "--max-examples", "50"),
        *("--header", f"Authorization: Bearer {KEY}", "--no-color"),
        *("--generation-deterministic",),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
