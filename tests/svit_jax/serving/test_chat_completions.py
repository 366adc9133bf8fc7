"""The API as OpenAI's own client sees it."""

import json
import re

import numpy as np
import openai
import pytest
from served import ScriptedEngine, serving

from data_pipeline.common.dialogue import Turn
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.sampler import Sampling

SAID = "red or blue ☃."
HELLO = [{"role": "user", "content": "Hello?"}]


def connect(served, key="none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(served):
    with connect(served) as found:
        yield found


def about(picture_url, text="What is this?"):
    parts = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": picture_url, "detail": "auto"}},
    ]
    return [{"role": "user", "content": parts}]


def test_a_whole_answer(client, parrot, tiny_assistant, picture, picture_url):
    reply = client.chat.completions.create(
        model="tiny", messages=about(picture_url), max_tokens=100, temperature=0
    )
    (choice,) = reply.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", SAID)
    assert (reply.object, reply.model) == ("chat.completion", "tiny")
    (ticket,) = parrot.tickets
    prompt = tiny_assistant.prompt([Turn("human", "<image>\nWhat is this?")], [picture])
    np.testing.assert_array_equal(ticket.prompt.tokens, prompt.tokens)
    np.testing.assert_array_equal(ticket.prompt.images, prompt.images)
    usage = reply.usage
    assert usage.prompt_tokens == len(prompt.tokens)
    assert usage.completion_tokens == len(parrot.tokens)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_streamed_answer(client, parrot):
    asked = {"model": "tiny", "messages": HELLO, "stream": True}
    chunks = list(client.chat.completions.create(**asked))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant" and not any(delta.role for delta in deltas[1:])
    pieces = [delta.content for delta in deltas[1:-1]]
    assert "".join(pieces) == SAID and len(pieces) > 3 and all(pieces)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    chunks = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(parrot.tokens)


def test_settings_reach_the_engine(client, parrot):
    client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        temperature=0.5,
        top_p=0.25,
        seed=-1,
        max_completion_tokens=2,
        extra_body={"top_k": 7, "repetition_penalty": 1.5},
        user="someone",
        n=1,
    )
    (ticket,) = parrot.tickets
    assert ticket.sampling == Sampling(0.5, 0.25, 2**32 - 1, 7, 1.5)
    assert ticket.max_new_tokens == 2
    for _ in range(2):
        client.chat.completions.create(model="tiny", messages=HELLO)
    one, other = (ticket.sampling for ticket in parrot.tickets[1:])
    assert one.temperature == one.top_p == 1 and one.seed != other.seed


@pytest.mark.parametrize("stream", [False, True])
def test_limits_and_stop_strings(client, parrot, stream):
    def ask(**more):
        reply = client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            stream=stream,
            **more,
        )
        if not stream:
            return reply.choices[0].message.content, reply.choices[0].finish_reason
        chunks = list(reply)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        return text, chunks[-1].choices[0].finish_reason

    assert ask(stop=[" or", "never"]) == ("red", "stop")
    assert parrot.tickets[-1].cancelled
    assert ask(stop="☃") == ("red or blue", "stop")
    assert ask(stop="green") == (SAID, "stop")
    few, reason = ask(max_tokens=3)
    assert reason == "length" and SAID.startswith(few) and few != SAID


def test_logprobs(client, parrot, tiny_assistant):
    asked = {"model": "tiny", "messages": HELLO, "logprobs": True}
    whole = client.chat.completions.create(**asked).choices[0].logprobs.content
    assert [entry.logprob for entry in whole] == [-1.0 - n for n in range(len(parrot.tokens))]
    # The first word's space is in its token, as everywhere.
    assert b"".join(bytes(entry.bytes) for entry in whole) == f" {SAID}".encode()
    assert "".join(entry.token for entry in whole).replace("\ufffd", "") == " red or blue ."
    streamed = [
        entry
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert streamed == whole


def test_several_turns_a_system_message_and_pictures(
    client, parrot, tiny_assistant, picture, picture_url
):
    messages = [
        {"role": "system", "content": "Be brief."},
        *about(picture_url, "What is this?"),
        {"role": "assistant", "content": "A circle.", "refusal": None, "tool_calls": None},
        *about(picture_url, "And <this>?"),
    ]
    client.chat.completions.create(model="tiny", messages=messages)
    turns = [
        Turn("human", "<image>\nWhat is this?"),
        Turn("gpt", "A circle."),
        Turn("human", "<image>\nAnd <this>?"),
    ]
    expected = tiny_assistant.prompt(turns, [picture, picture], system="Be brief.")
    np.testing.assert_array_equal(parrot.tickets[-1].prompt.tokens, expected.tokens)
    shown = tiny_assistant.tokenizer.shown(expected.tokens.tolist())
    assert "Be brief. USER:" in shown and "A chat between" not in shown


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "svit-jax"
    with pytest.raises(openai.NotFoundError, match="There is no model 'other'"):
        client.models.retrieve("other")


def test_the_real_engine_answers_as_it_does_alone(real_assistant, picture, picture_url):
    question = "What color is the circle?"
    engine = ContinuousEngine(real_assistant.engine, rows=2, max_length=256)
    try:
        with serving(real_assistant, engine) as served, connect(served) as client:
            reply = client.chat.completions.create(
                model="tiny", messages=about(picture_url, question), max_tokens=6, temperature=0
            )
    finally:
        engine.close(drain=False)
    expected = real_assistant.answer(picture, question, 6)
    assert reply.choices[0].message.content == expected


WRONG = [
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"temprature": 1}, "temprature", "did you mean temperature?"),
    ({"n": 2}, "n", "only 1 is supported"),
    ({"n": True}, "n", "only 1 is supported"),
    ({"tools": [{"type": "function"}]}, "tools", r"only \[\] is supported"),
    ({"response_format": {"type": "json_object"}}, "response_format", "only {'type': 'text'}"),
    ({"top_logprobs": 3}, "top_logprobs", "only 0 is supported"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 10_000}, "max_tokens", "ask for 2048 at most"),
    ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "give one of them"),
    ({"max_tokens": 390}, "messages", "is too long"),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": [""]}, r"stop\[0\]", "at least 1"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "robot", "content": ""}]}, r"messages\[0\]", "'robot'"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\].content", "required"),
    ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages", "more text than"),
    (
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        r"messages\[0\].role",
        "expected user",
    ),
    ({"messages": [{"role": "system", "content": "Hi"}]}, "messages", "must be the user's"),
]


@pytest.mark.parametrize(("wrong", "param", "message"), WRONG)
def test_wrong_parameters_are_named(client, parrot, wrong, param, message):
    asked = {"messages": HELLO, **wrong}
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.chat.completions.create(
            model="tiny", messages=asked.pop("messages"), extra_body=asked
        )
    assert caught.value.type == "invalid_request_error"
    assert re.fullmatch(param, caught.value.param)
    assert not parrot.tickets


def test_wrong_pictures_are_named(client, parrot):
    part = r"messages\[0\].content\[1\].image_url.url"
    for url, message in (
        ("photo.jpg", "is neither a data URL nor one of http or https"),
        ("http://example.com/a.jpg", "a host that this server does not fetch from"),
        ("data:image/png,abc", "is not a data URL of the form"),
        ("data:image/png;base64,a$b", "is not base64"),
        ("data:image/png;base64,aGVsbG8=", "is not a whole JPEG, PNG"),
    ):
        with pytest.raises(openai.BadRequestError, match=f"{part}.*{message}"):
            client.chat.completions.create(model="tiny", messages=about(url))
    with pytest.raises(openai.BadRequestError, match="holds <image>, which stands for a picture"):
        client.chat.completions.create(model="tiny", messages=about("data:", "Is <image> it?"))
    text = [{"role": "user", "content": "Is <image> a word?"}]
    assert client.chat.completions.create(model="tiny", messages=text).choices[0].message.content


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError, match="this server has tiny") as caught:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "?"}])
    assert caught.value.code == "model_not_found"


def test_a_model_that_fails_says_so(client, parrot):
    def fails(prompt, max_new_tokens, sampling, deliver, client=""):
        ticket = ScriptedEngine.submit(parrot, prompt, max_new_tokens, sampling, deliver, client)
        ticket.give([], "error")
        return ticket

    parrot.go.clear()
    parrot.submit = fails
    messages = [{"role": "user", "content": "?"}]
    with pytest.raises(openai.InternalServerError, match="The model failed at this request"):
        client.chat.completions.create(model="tiny", messages=messages)
    with pytest.raises(openai.APIError, match="The model failed at this request"):
        list(client.chat.completions.create(model="tiny", messages=messages, stream=True))
    parrot.broken = RuntimeError("out of memory")
    with pytest.raises(openai.InternalServerError, match="must be started anew"):
        client.chat.completions.create(model="tiny", messages=messages)


def test_bodies_that_are_no_request(served):
    for body, status, code in (
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"[]", 400, "invalid_value"),
        (b'{"model": "\\ud800"}', 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
    ):
        found, headers, reply = served.ask("POST", "/v1/chat/completions", body)
        assert (found, json.loads(reply)["error"]["code"]) == (status, code), body[:20]
        assert headers["content-type"] == "application/json"
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/models", 405),
    ):
        found, headers, reply = served.ask(method, path)
        assert found == status and path in json.loads(reply)["error"]["message"]


def test_the_description_names_every_route_and_resolves(served):
    document = json.loads(served.ask("GET", "/openapi.json")[2])
    for path, operations in document["paths"].items():
        for method in operations:
            asked = served.ask(method.upper(), path.replace("{model}", "tiny"), b"{}")
            assert str(asked[0]) in operations[method]["responses"]
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"]) and "ChatRequest" in names
    asked = document["components"]["schemas"]["ChatRequest"]
    assert asked["required"] == ["model", "messages"] and asked["additionalProperties"] is False
    assert asked["properties"]["n"] == {"enum": [None, 1], "title": "N", "default": None}
