"""In steady state nothing is compiled: counted by JAX's own events, over a stream of requests."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from random_prompts import make_engine, make_prompt

from svit_jax.inference.sampler import GREEDY, Sampling

EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/backend_compile_duration",
)


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The names of JAX's events of tracing and of compiling, as they come."""
    seen: list[str] = []

    def listen(event: str, duration: float, **more: object) -> None:
        if event in EVENTS:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def engine(model):
    return make_engine(model, 2, eos_id=7)


def requests(model, lengths, seed):
    """Prompts of these lengths, short ones with a picture or without, each with settings of its
    own."""
    rng = np.random.default_rng(seed)
    prompts = [
        make_prompt(model, seed + n, length, pictures=1 if length > 64 else n % 2)
        for n, length in enumerate(lengths)
    ]
    samplings = [
        Sampling(
            temperature=float(rng.choice([0, 0.5, 1.5])),
            top_p=float(rng.choice([0.3, 1])),
            seed=int(rng.integers(1000)),
            top_k=int(rng.choice([0, 5])),
            repetition_penalty=float(rng.choice([1, 1.3])),
        )
        for _ in lengths
    ]
    return prompts, samplings


def serve(engine, prompts, samplings):
    assert len(list(engine.generate(prompts, 20, samplings))) == len(prompts)
    assert len(list(engine.generate(prompts[:3], 17))) == 3
    for prompt, sampling in zip(prompts[:4], samplings, strict=False):
        list(engine.stream(prompt, 20, sampling))
    long = [prompt for prompt in prompts if len(prompt.tokens) > 64]
    list(engine.score(long, [[5] * (1 + n % 9) for n in range(len(long))]))


def test_a_stream_of_requests_compiles_nothing_new(engine, model):
    """Two buckets, one of them with a picture and without: after the first of each, none is new."""
    with counted() as first:
        serve(engine, *requests(model, [30, 30, 100, 100], seed=0))
    assert set(first) == set(EVENTS)  # so that counting none below means something
    # Prefill: three shapes; decoding, which has no pictures: two; scoring: one.
    assert engine.programs.compiled() == 3 + 2 + 1
    with counted() as later:
        lengths = [20, 25, 44, 50, 66, 70, 81, 95, 110, 20, 64 - 9, 65, 128 - 9]
        serve(engine, *requests(model, lengths, seed=1))
        serve(engine, *requests(model, lengths[::-1], seed=2))
    assert later == []


def test_another_shape_is_counted(engine, model):
    with counted() as seen:
        next(engine.generate([make_prompt(model, 5, 140)], 20, GREEDY))
    assert EVENTS[1] in seen
