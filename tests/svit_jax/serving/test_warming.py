"""What is compiled before the server says that it is ready, and what is said and answered until."""

import json
import re
import threading

import jax
import numpy as np
import pytest
from served import ScriptedEngine, Served, serving, wait_until
from test_limits import CHAT, asking

from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.sampler import GREEDY
from svit_jax.inference.shapes import bucket_length
from svit_jax.serving.warming import WarmUp, usual_prompts


def state(served: Served) -> tuple[int, str]:
    status, _, reply = served.ask("GET", "/ready")
    return status, json.loads(reply)["status"]


def test_a_prompt_of_every_usual_length():
    prompts = usual_prompts(512, 576, 4, 4096)
    lengths = [(bucket_length(len(p.tokens)), len(p.images)) for p in prompts]
    alone, beside = ([n for n, count in lengths if count == pictures] for pictures in (0, 1))
    assert alone == [64, 128, 192, 256, 320, 384, 448, 512]
    # In buckets of 64 up to 1024, then of 128.
    assert beside == [640, 704, 768, 832, 896, 960, 1024, 1152]
    for prompt in prompts:
        held = prompt.vision_index[prompt.vision_index >= 0]
        np.testing.assert_array_equal(held, np.arange(576 * len(prompt.images)))
    assert max(len(p.tokens) for p in usual_prompts(512, 576, 4, 700)) == 698
    assert usual_prompts(0, 576, 4, 4096) == []


def test_ready_after_warming_up_and_answering_meanwhile(tiny_assistant):
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red"))
    engine.go.clear()
    said = []
    warm_up = WarmUp(engine, usual_prompts(128, 4, 8, 400), said.append)
    with serving(tiny_assistant, engine, warm_up=warm_up) as served:
        assert state(served) == (503, "warming_up")
        warm_up.start()
        wait_until(lambda: engine.tickets)
        assert state(served) == (503, "warming_up") and served.ask("GET", "/health")[0] == 200
        engine.go.set()
        assert served.ask("POST", CHAT, asking())[0] == 200
        wait_until(lambda: not warm_up.going)
        assert state(served) == (200, "ready")
    assert re.fullmatch(r"warm-up 1 of 5: 64 tokens, [\d.]+ s", said[0])
    assert re.fullmatch(r"warm-up 5 of 5: 192 tokens with a picture, [\d.]+ s", said[4])
    assert re.fullmatch(r"warm-up took [\d.]+ s", said[5]) and len(said) == 6
    assert {t.client for t in engine.tickets if len(t.prompt.tokens) == 64} == {"warm-up"}


@pytest.mark.parametrize("full", [False, True])
def test_an_engine_that_ends_or_is_full_ends_it(tiny_assistant, full):
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red"), full=full)
    engine.go.clear()
    said = []
    warm_up = WarmUp(engine, usual_prompts(64, 4, 8, 400), said.append)
    warm_up.start()
    wait_until(lambda: engine.tickets or full)
    engine.close(drain=False)
    wait_until(lambda: not warm_up.going)
    assert said == ["warm-up ends after 0 of 3 programs"]


def test_nothing_is_compiled_for_what_was_warmed_up(real_assistant):
    engine = ContinuousEngine(real_assistant.engine, rows=2, max_length=256)
    vision = real_assistant.bundle.model.vision
    where = vision.patches, vision.image_size, engine.max_length
    compiled: list[str] = []

    def listen(event: str, duration: float, **more: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def answer(prompt) -> None:
        done = threading.Event()
        engine.submit(prompt, 5, GREEDY, lambda tokens, last: last and done.set())
        assert done.wait(120)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        warm_up = WarmUp(engine, usual_prompts(100, *where), lambda line: None)
        warm_up.start()
        wait_until(lambda: not warm_up.going)
        made = len(compiled)
        assert made
        # Other lengths of the same buckets.
        for prompt in usual_prompts(70, *where):
            answer(prompt)
        assert len(compiled) == made
        answer(usual_prompts(200, *where)[-1])
        assert len(compiled) > made
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
        engine.close(drain=False)
