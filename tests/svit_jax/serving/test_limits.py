"""Who is let in, and how far: keys, names, sizes, overload, clients that leave or don't read."""

import dataclasses
import json
import logging
import re
import socket
import time

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import SETTINGS, ScriptedEngine, serving, wait_until

from data_pipeline.common.errors import UserError
from svit_jax.serving.errors import ApiError
from svit_jax.serving.run import listen
from svit_jax.serving.settings import KEYS_VARIABLE, Access, Limits, make_access

CHAT = "/v1/chat/completions"


def asking(text: str = "Hello?", **more) -> bytes:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(body).encode()


def request(body: bytes) -> bytes:
    """The request as it goes over the wire."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def limited(**limits):
    return dataclasses.replace(SETTINGS, limits=Limits(**limits))


def code_of(reply: bytes) -> str:
    return json.loads(reply)["error"]["code"]


@pytest.fixture
def long(tiny_assistant) -> ScriptedEngine:
    """Says nothing until it is told to."""
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red or blue"), rows=1)
    engine.go.clear()
    return engine


def test_keys(tiny_assistant, parrot, tmp_path, monkeypatch):
    (tmp_path / "keys").write_text("first-key\n\nsecond-key\n")
    access = make_access("127.0.0.1", tmp_path / "keys", [], [])
    assert len(access.keys) == 2 and b"first-key" not in access.keys
    with serving(tiny_assistant, parrot, dataclasses.replace(SETTINGS, access=access)) as served:
        for authorization in (
            None,
            "Bearer",
            "Bearer wrong",
            "Bearer first-key second-key",
            "Basic first-key",
            "first-key",
            "Bearer \xe9",
        ):
            headers = {} if authorization is None else {"authorization": authorization}
            for method, path, body in (
                ("POST", CHAT, asking()),
                ("GET", "/v1/models", None),
                ("GET", "/metrics", None),
                ("GET", "/v1/nothing", None),
            ):
                status, found, reply = served.ask(method, path, body, **headers)
                assert (status, code_of(reply)) == (401, "invalid_api_key")
                assert found["www-authenticate"] == "Bearer"
        assert served.ask("GET", "/health")[0] == served.ask("GET", "/ready")[0] == 200
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="second-key", max_retries=0)
        assert client.models.list().data
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="third").models.list()
        client.chat.completions.create(**json.loads(asking()))
        assert parrot.tickets[-1].client.startswith("key:")
        assert "second" not in parrot.tickets[-1].client
    monkeypatch.setenv(KEYS_VARIABLE, " a  b ")
    assert len(make_access("127.0.0.1", None, [], []).keys) == 2
    (tmp_path / "keys").write_text(" \n")
    with pytest.raises(UserError, match="keys is empty; write one key on each line"):
        make_access("127.0.0.1", tmp_path / "keys", [], [])


def test_names_that_the_server_is_called_by(tiny_assistant, parrot):
    access = make_access("127.0.0.1", None, [], [])
    with serving(tiny_assistant, parrot, dataclasses.replace(SETTINGS, access=access)) as served:
        for host, status in (
            (f"127.0.0.1:{served.port}", 200),
            ("localhost", 200),
            ("LOCALHOST:1", 200),
            ("[::1]:8000", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("localhost@evil.example", 403),
            ("[::1", 403),
            ("", 403),
        ):
            assert served.ask("GET", "/v1/models", host=host)[0] == status, host
    assert make_access("0.0.0.0", None, [], []).hosts == frozenset()
    assert make_access("::1", None, ["Mine.example"], []).hosts == {"mine.example"}


def test_large_slow_and_mistyped_bodies(tiny_assistant, parrot):
    with serving(tiny_assistant, parrot, limited(body_bytes=2000, body_seconds=0.5)) as served:
        for size in (3000, 50_000):
            status, _, reply = served.ask("POST", CHAT, asking("x" * size))
            assert (status, code_of(reply)) == (413, "body_too_large")
        assert served.ask("POST", CHAT, asking() + b" " * 1500)[0] == 200
        status, _, reply = served.ask("POST", CHAT, asking(), content_type="text/plain")
        assert (status, code_of(reply)) == (415, "wrong_content_type")
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.sendall(request(asking())[:-1])
            slow.settimeout(60)
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        assert served.ask("POST", CHAT, asking())[0] == 200
    assert len(parrot.tickets) == 2


def test_pictures_past_the_limits(tiny_assistant, parrot, picture, picture_url):
    part = {"type": "image_url", "image_url": {"url": picture_url}}

    def ask(served, count):
        content = [part] * count + [{"type": "text", "text": "?"}]
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        status, _, reply = served.ask("POST", CHAT, json.dumps(body).encode())
        return status, reply

    with serving(tiny_assistant, parrot, limited(pictures=2, default_tokens=5)) as served:
        assert ask(served, 2)[0] == 200
        status, reply = ask(served, 3)
        assert (status, code_of(reply)) == (400, "too_many_pictures")
    with serving(tiny_assistant, parrot, limited(picture_pixels=1000)) as served:
        status, reply = ask(served, 1)
        assert (status, code_of(reply)) == (400, "invalid_image")
        assert "scale it down to 31 a side" in json.loads(reply)["error"]["message"]


def test_overload_is_told_to_come_again(tiny_assistant, long):
    """One row and one that waits: the third is refused, the others are answered."""
    with serving(tiny_assistant, long, max_waiting=1) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        asked = json.loads(asking(stream=True))
        streams = [client.chat.completions.create(**asked) for _ in range(2)]
        status, headers, reply = served.ask("POST", CHAT, asking())
        assert (status, code_of(reply), headers["retry-after"]) == (429, "overloaded", "1")
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**asked)
        long.go.set()
        for stream in streams:
            assert list(stream)[-1].choices[0].finish_reason == "stop"
        wait_until(lambda: served.ask("POST", CHAT, asking())[0] == 200)
    long.full = True
    with serving(tiny_assistant, long) as served:
        status, headers, _ = served.ask("POST", CHAT, asking())
        assert status == 429 and headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_cancelled(tiny_assistant, long, stream):
    with serving(tiny_assistant, long) as served:
        body = asking(stream=stream)
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(request(body))
            wait_until(lambda: long.tickets)
            time.sleep(0.05)
            assert not long.tickets[0].cancelled
        wait_until(lambda: long.tickets[0].ended_by == "cancelled")
        wait_until(lambda: served.server.service.admission.inside == 0)


def test_a_reader_that_takes_nothing_is_dropped(tiny_assistant):
    """What it would be sent, the model's name with each token, is more than all buffers hold."""
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red or blue " * 100))
    settings = dataclasses.replace(limited(send_seconds=0.3), model="m" * 10_000)
    with serving(tiny_assistant, engine, settings) as served, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", served.port))
        client.sendall(request(asking(stream=True, model=settings.model, max_tokens=300)))
        wait_until(lambda: engine.tickets and engine.tickets[0].ended_by)
        wait_until(lambda: served.server.service.admission.inside == 0)
        figures = served.ask("GET", "/metrics")[2].decode()
    assert re.search(r'svit_requests_total{error="(slow_reader|client_left)".* 1.0', figures)


def test_figures(served, parrot):
    served.ask("POST", CHAT, asking(), x_request_id="mine-1")
    served.ask("POST", CHAT, asking(n=2))
    served.ask("GET", "/v1/models/made-up-1")
    served.ask("GET", "/made-up-2")
    _, headers, text = served.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"made-up" not in text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert found["svit_requests_total", *sorted(["", CHAT, "200"])] == 1
    assert found["svit_requests_total", *sorted(["unsupported_value", CHAT, "400"])] == 1
    assert found["svit_requests_total", *sorted(["not_found", "other", "404"])] == 1
    assert found["svit_tokens_total", "completion", "tiny"] == len(parrot.tokens)
    assert found["svit_tokens_total", "prompt", "tiny"] == len(parrot.tickets[0].prompt.tokens)
    for name in ("svit_request_seconds_count", "svit_first_token_seconds_count"):
        assert found[name, "tiny"] == 1
    assert found["svit_running",] == found["svit_waiting",] == 0


def test_the_log_has_a_line_for_each_request_and_no_contents(
    tiny_assistant, parrot, picture_url, caplog
):
    parts = [
        {"type": "text", "text": "a secret"},
        {"type": "image_url", "image_url": {"url": picture_url}},
    ]
    body = {"model": "tiny", "messages": [{"role": "user", "content": parts}]}
    lines = []
    for contents in (False, True):
        settings = dataclasses.replace(SETTINGS, log_contents=contents)
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, "svit_jax.serving"),
            serving(tiny_assistant, parrot, settings) as served,
        ):
            _, headers, reply = served.ask(
                "POST", CHAT, json.dumps(body).encode(), x_request_id="mine-1"
            )
            assert headers["x-request-id"] == "mine-1"
            assert json.loads(reply)["id"] == "chatcmpl-mine-1"
            made = served.ask("GET", "/v1/models", x_request_id="bad id")[1]["x-request-id"]
            assert len(made) == 32 and made.isalnum()
            served.ask("GET", "/health")
            wait_until(lambda: len(caplog.records) == 2)
        lines.append([record.msg for record in caplog.records])
    (chat, models), (with_contents, _) = lines
    assert chat["request"] == "mine-1" and chat["status"] == 200 and chat["error"] is None
    assert chat["client"] == "127.0.0.1" and chat["path"] == CHAT
    assert (chat["model"], chat["pictures"], chat["finish_reason"]) == ("tiny", 1, "stop")
    assert chat["completion_tokens"] == len(parrot.tokens)
    assert "secret" not in str(chat) and "blue" not in str(chat) and models["status"] == 200
    assert with_contents["messages"] == [{"role": "user", "content": ["a secret", "(picture)"]}]
    assert with_contents["answer"] == "red or blue ☃."


def test_an_error_of_ours_is_said_and_logged_and_harms_nobody(served, parrot, caplog):
    def fails(*asked):
        raise RuntimeError("inner words")

    parrot.submit = fails
    with caplog.at_level(logging.ERROR, "svit_jax.serving"):
        status, headers, reply = served.ask("POST", CHAT, asking())
    assert (status, code_of(reply)) == (500, "internal_error")
    assert b"inner words" not in reply and headers["x-request-id"].encode() in reply
    assert "inner words" in caplog.text
    del parrot.submit
    assert served.ask("POST", CHAT, asking())[0] == 200


def test_settings_that_make_no_sense(served):
    with pytest.raises(UserError, match="--body-bytes is 0; give a number above 0"):
        Limits(body_bytes=0)
    with pytest.raises(UserError, match=r"can't be served .* choose another --host or --port"):
        listen(dataclasses.replace(SETTINGS, port=served.port))
    assert Access() == make_access("0.0.0.0", None, [], [])
    assert ApiError(503, "words").body()["error"]["type"] == "server_error"
