"""A run that is killed at random moments, or interrupted, judged by the server's own log."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from data_pipeline.endpoint.asking import Conduct
from data_pipeline.endpoint.openai_model import OpenAIModel
from data_pipeline.generation.generate import generate

CONCURRENCY = 4
REQUESTS = 24
PRELOADED = ["openai", "httpx2", "data_pipeline.generation.generate"]

pytestmark = pytest.mark.usefixtures("key")


def ask(scenes: Path, out: Path, url: str) -> None:
    teacher = OpenAIModel("m", base_url=url, connections=CONCURRENCY)
    generate(scenes, out, teacher, conduct=Conduct(concurrency=CONCURRENCY))


def ask_in_child(scenes: Path, out: Path, url: str, log: Path) -> None:
    os.environ["OPENAI_API_KEY"] = "any"
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), sys.stderr.fileno())
    ask(scenes, out, url)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def kill_after(child: Any, server: ChatServer, calls: int, seconds: float) -> None:
    """Kills the child when the server has had so many calls and some time has passed."""
    wait_for(lambda: len(server.calls) >= calls or not child.is_alive())
    time.sleep(seconds)
    child.kill()
    child.join()


def answered_and_open(journal: Path) -> tuple[set[str], set[str]]:
    """The keys with an answer, and those that the last process began and did not finish."""
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    rows = [json.loads(line) for line in lines]
    answered = {row["key"] for row in rows if "key" in row}
    last = max((row["process"] for row in rows if "begin" in row), default=0)
    begun = {row["begin"] for row in rows if row.get("process") == last}
    return answered, begun - answered


def told(log: Path) -> int:
    found = re.search(r"(\d+) calls were in flight", log.read_text())
    return int(found[1]) if found else 0


def test_kill_9_at_any_moment_repeats_only_calls_in_flight(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    rng = random.Random(11)
    out, log, journal = tmp_path / "out", tmp_path / "log", tmp_path / "out" / "journal.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    lost_in_all = 0
    with ChatServer(latency=lambda key: rng.uniform(0.01, 0.05)) as server:
        killed = True
        while killed:
            before, lost = answered_and_open(journal)
            start = len(server.calls)
            child = context.Process(
                target=ask_in_child, args=(captioned_scenes, out, server.url, log)
            )
            child.start()
            kill_after(child, server, start + rng.randint(2, 9), rng.uniform(0, 0.04))
            killed = child.exitcode == -signal.SIGKILL
            assert killed or child.exitcode == 0
            if len(server.calls) > start:
                assert told(log) == len(lost) <= CONCURRENCY
            asked = [call.key for call in server.calls[start:]]
            assert len(asked) == len(set(asked)) and not before & set(asked)
            answered, lost = answered_and_open(journal)
            assert set(asked) <= answered | lost
            lost_in_all += len(lost) if killed else 0
        repeated = len(server.calls) - REQUESTS
        assert 0 < repeated <= lost_in_all
        ask(captioned_scenes, tmp_path / "whole", server.url)
    for name in (*(path.name for path in out.glob("*.json")), "quarantine.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list(out.glob("*.json"))) == 5


def interruptible() -> None:
    """What a shell starts with "&" ignores Ctrl-C, and so do its children: also these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(
    captioned_scenes: Path, tmp_path: Path
) -> None:
    out, answered_before = tmp_path / "out", 6
    interrupted = False

    def latency(key: str) -> float:
        """The server answers six calls, and no more until the child was interrupted."""
        return 0.0 if interrupted or len(server.calls) <= answered_before else 60.0

    with ChatServer(latency=latency) as server:
        options = ["--teacher", "openai", "--model", "m", "--base-url", server.url]
        command = [sys.executable, "-m", "svit_jax.cli", "data", "generate", "--scenes"]
        command += [str(captioned_scenes), "--out", str(out), "--concurrency", "2", *options]
        child = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
        )
        wait_for(lambda: len(server.calls) >= answered_before + 2)
        child.send_signal(signal.SIGINT)
        errors = child.communicate(timeout=50)[1]
        interrupted = True
        assert child.returncode == 130
        assert errors.endswith("svit: interrupted; run the same command again to go on.\n")
        assert "Traceback" not in errors
        answered, lost = answered_and_open(out / "journal.jsonl")
        assert len(answered) == answered_before and len(lost) == 2
        first = len(server.calls)
        ask(captioned_scenes, out, server.url)
        assert not answered & {call.key for call in server.calls[first:]}
        assert len(server.calls) - first == REQUESTS - len(answered)
