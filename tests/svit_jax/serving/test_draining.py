"""SIGTERM: what was taken is answered, what is new is refused, and the process ends well."""

import base64
import json
import re
import signal
import subprocess
import sys
import threading

import httpcore
import openai
import pytest
from served import ScriptedEngine, serving, wait_until
from test_limits import CHAT, asking, code_of, limited

from svit_jax import api
from svit_jax.cli import main

ASKED = json.loads(asking())


@pytest.fixture
def engine(tiny_assistant):
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red or blue"))
    engine.go.clear()
    return engine


def connect(served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def test_draining_answers_what_was_taken(tiny_assistant, engine):
    with serving(tiny_assistant, engine) as served:
        stream = connect(served).chat.completions.create(**ASKED, stream=True)
        assert json.loads(served.ask("GET", "/ready")[2])["running"] == 1
        served.server.handle_exit(signal.SIGTERM, None)
        status, headers, reply = served.ask("POST", CHAT, asking())
        assert (status, code_of(reply)) == (503, "shutting_down")
        assert headers["connection"] == "close" and headers["retry-after"] == "1"
        status, _, reply = served.ask("GET", "/ready")
        assert (status, json.loads(reply)["status"]) == (503, "draining")
        assert served.ask("GET", "/health")[0] == 200
        engine.go.set()
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == "red or blue"
        served.thread.join(30)
        assert not served.thread.is_alive()


def test_what_is_not_answered_in_time_is_told_so(tiny_assistant, engine):
    failed = []

    def ask(client):
        try:
            client.chat.completions.create(**ASKED)
        except openai.APIError as error:
            failed.append(error)

    with serving(tiny_assistant, engine, limited(drain_seconds=0.3)) as served:
        stream = connect(served).chat.completions.create(**ASKED, stream=True)
        other = threading.Thread(target=ask, args=[connect(served)])
        other.start()
        wait_until(lambda: len(engine.tickets) == 2)
        served.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.APIError, match="The server is shutting down"):
            list(stream)
        other.join(30)
        assert [error.status_code for error in failed] == [503]
        served.thread.join(30)
        assert not served.thread.is_alive()
    assert {ticket.ended_by for ticket in engine.tickets} == {"cancelled"}


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(
    trained, served, monkeypatch, capsys
):
    monkeypatch.setattr(api, "load", None)
    where = ["--checkpoint", str(trained.workdir), "--port", str(served.port)]
    assert main(["serve", *where]) == 1
    assert "choose another --host or --port" in capsys.readouterr().err


def test_the_command_serves_a_checkpoint_until_sigterm(trained, picture):
    """The real thing: a process, its log, an answer, an end with exit code 0."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "svit_jax.cli", "serve", "--port", "0", "--rows", "1"),
            *("--checkpoint", trained.workdir, "--max-length", "128"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = map(json.loads, process.stderr)
        address = next(found for line in log if (found := re.search("http:.*", line["message"])))
        origin = address[0].removesuffix("/v1")
        client = openai.OpenAI(base_url=address[0], api_key="none", max_retries=0)
        url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is red?"},
        ]
        reply = client.chat.completions.create(
            model="trained", messages=[{"role": "user", "content": content}], max_tokens=3
        )
        assert 0 <= reply.usage.completion_tokens <= 3
        wait_until(lambda: httpcore.request("GET", f"{origin}/ready").status == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
        lines = list(log)
        assert next(line for line in lines if line.get("path") == CHAT)["status"] == 200
        assert any(line.get("message", "").startswith("warm-up took") for line in lines)
    finally:
        process.kill()
        process.stderr.close()
