"""Continuous batching: whatever else comes and goes, a request gets the tokens it gets alone."""

import threading

import jax
import numpy as np
import pytest
from random_prompts import make_engine, make_prompt
from test_compilation_count import counted

from data_pipeline.common.errors import UserError
from svit_jax.inference.continuous import ContinuousEngine, cache_row_bytes
from svit_jax.inference.requests import FairQueue, FullError, Ticket
from svit_jax.inference.sampler import GREEDY, Sampling
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

SAMPLINGS = (GREEDY, Sampling(1.2, seed=3), Sampling(0.8, top_k=20, top_p=0.9, seed=4))


class Answer:
    """What a request gets, collected."""

    def __init__(self):
        self.tokens, self.logs, self.calls = [], [], 0
        self.done, self.began = threading.Event(), threading.Event()

    def __call__(self, tokens, last):
        assert not self.done.is_set()
        self.calls += 1
        self.tokens += [token.id for token in tokens]
        self.logs += [token.log_probability for token in tokens]
        self.began.set()
        if last:
            self.done.set()

    def wait(self):
        assert self.done.wait(120)
        return self.tokens


@pytest.fixture(scope="module")
def eos(model):
    """A token that one of the answers has in its middle."""
    answer = next(make_engine(model, 1).generate([make_prompt(model, 10, 40)], 4))
    return answer.tokens[2]


@pytest.fixture(scope="module")
def alone(model, eos):
    """A request's answer from the engine that takes one prompt at a time."""
    engine = make_engine(model, 1, eos_id=eos, max_length=256)

    def answer(prompt, limit, sampling):
        return next(engine.generate([prompt], limit, sampling))

    return answer


@pytest.fixture(scope="module")
def continuous(model, eos):
    engine = ContinuousEngine(make_engine(model, 1, eos_id=eos, max_length=256), rows=3, chunk=3)
    yield engine
    engine.close(drain=False)


def ask(engine, prompt, limit=8, sampling=GREEDY, client=""):
    answer = Answer()
    return engine.submit(prompt, limit, sampling, answer, client), answer


def mix(model, count, seed):
    """Requests of two buckets and several limits and settings: short ones with a picture or none,
    long ones with two."""
    rng = np.random.default_rng(seed)

    def prompt(n):
        if rng.random() < 0.6:
            return make_prompt(model, n, int(rng.integers(24, 64)), pictures=int(rng.integers(2)))
        return make_prompt(model, n, int(rng.integers(70, 120)), pictures=2)

    first = (make_prompt(model, seed, 40), 9, GREEDY)
    return [first] + [
        (prompt(seed + n), int(rng.integers(1, 30)), SAMPLINGS[rng.integers(len(SAMPLINGS))])
        for n in range(1, count)
    ]


def test_any_mix_gives_each_what_it_gets_alone(model, continuous, alone):
    """More requests than rows, that join while others decode."""
    requests = mix(model, 14, seed=10)
    asked = []
    for prompt, limit, sampling in requests:
        asked.append(ask(continuous, prompt, limit, sampling))
        if len(asked) % 4 == 0:
            asked[-1][1].began.wait(120)
    endings = set()
    for (ticket, answer), request in zip(asked, requests, strict=True):
        expected = alone(*request)
        assert answer.wait() == expected.tokens
        np.testing.assert_allclose(answer.logs, expected.log_probabilities, atol=1e-4)
        assert ticket.ended_by == ("eos" if expected.ended else "limit")
        endings.add(ticket.ended_by)
    assert endings == {"eos", "limit"}
    assert continuous.running() == continuous.waiting() == 0


def test_cancelling_frees_the_row_for_those_who_wait(model, continuous, alone):
    long = [
        ask(continuous, make_prompt(model, n, 30), 200, Sampling(2.0, seed=n)) for n in (1, 2, 4)
    ]
    for _, answer in long:
        answer.began.wait(120)
    _, last = ask(continuous, make_prompt(model, 5, 40), 6)
    gone, never = ask(continuous, make_prompt(model, 6, 40), 6)
    gone.cancel()
    never.wait()
    assert gone.ended_by == "cancelled" and never.tokens == []
    for ticket, _ in long:
        ticket.cancel()
    assert last.wait() == alone(make_prompt(model, 5, 40), 6, GREEDY).tokens
    for ticket, answer in long:
        answer.wait()
        assert ticket.ended_by in ("cancelled", "eos")
    assert "cancelled" in {ticket.ended_by for ticket, _ in long}


def test_a_receiver_that_fails_harms_no_neighbour(model, continuous, alone):
    def fails(tokens, last):
        raise RuntimeError("the client went away")

    prompt = make_prompt(model, 8, 50)
    bad = continuous.submit(prompt, 20, Sampling(1.5, seed=1), fails)
    _, answer = ask(continuous, prompt, 20)
    assert answer.wait() == alone(prompt, 20, GREEDY).tokens
    ask(continuous, prompt, 1)[1].wait()
    assert bad.ended_by and str(bad.error) == "the client went away"
    assert continuous.broken is None


def test_pictures_are_looked_at_once(model, continuous):
    one, other = make_prompt(model, 30, 30), make_prompt(model, 31, 60)
    before = continuous.pictures.misses, continuous.pictures.hits
    for prompt in (one, other, one):
        ask(continuous, prompt, 2)[1].wait()
    assert continuous.pictures.misses - before[0] == 2
    assert continuous.pictures.hits - before[1] == 1


def test_few_pictures_are_kept_where_room_is_little(model):
    config = model.config
    features = config.vision.patches * config.decoder.embed * 4
    engine = ContinuousEngine(
        make_engine(model, 1, max_length=128), rows=1, picture_bytes=2 * features
    )
    for seed in (1, 2, 3, 1):
        ask(engine, make_prompt(model, seed, 30), 1)[1].wait()
    assert engine.pictures.misses == 4
    ask(engine, make_prompt(model, 3, 30), 1)[1].wait()
    assert engine.pictures.hits == 1
    engine.close()


def test_in_steady_state_nothing_is_compiled(model, continuous):
    for prompt, limit, sampling in mix(model, 12, seed=50):
        ask(continuous, prompt, limit, sampling)[1].wait()
    again = mix(model, 12, seed=50)[::-1]
    with counted() as events:
        for _, answer in [ask(continuous, *request) for request in again]:
            answer.wait()
    assert events == []


def test_what_cant_be_answered_is_refused(model, continuous):
    prompt = make_prompt(model, 0, 30)
    with pytest.raises(UserError, match="30 tokens and 227 new ones pass the context of 256"):
        ask(continuous, prompt, 227)
    with pytest.raises(UserError, match="at least 1"):
        ask(continuous, prompt, 0)


def test_the_queue_has_a_bound_and_drains(model, alone, eos):
    engine = ContinuousEngine(
        make_engine(model, 1, eos_id=eos, max_length=256), rows=1, max_waiting=2
    )
    prompts = [make_prompt(model, n, 30) for n in range(3)]
    _, first = ask(engine, prompts[0], 200, Sampling(2.0, seed=1))
    assert first.began.wait(120)
    others = [ask(engine, prompt, 5)[1] for prompt in prompts[1:]]
    with pytest.raises(FullError):
        ask(engine, prompts[0])
    engine.close(drain=True)
    assert first.done.is_set()
    for prompt, answer in zip(prompts[1:], others, strict=True):
        assert answer.tokens == alone(prompt, 5, GREEDY).tokens
    with pytest.raises(FullError, match="no more"):
        ask(engine, prompts[0])


def test_a_failure_of_the_devices_ends_every_request(model):
    engine = ContinuousEngine(make_engine(model, 1, max_length=128), rows=1)

    def fail(*arguments):
        raise RuntimeError("device lost")

    engine.decode.decode = fail
    asked = [ask(engine, make_prompt(model, n, 30), 5) for n in range(2)]
    for ticket, answer in asked:
        answer.wait()
        assert ticket.ended_by == "error" and "device lost" in str(ticket.error)
    with pytest.raises(FullError):
        ask(engine, make_prompt(model, 0, 30))


def ticket(model, client, length=30):
    return Ticket(make_prompt(model, 0, length), 1, GREEDY, Answer(), client)


def test_clients_take_turns(model):
    queue = FairQueue(9)
    many = [ticket(model, "many") for _ in range(4)]
    few = [ticket(model, "few"), ticket(model, "few", length=100)]
    for each in (*many, *few):
        queue.push(each)
    assert [queue.pop() for _ in range(3)] == [many[0], few[0], many[1]]
    assert queue.pop(shape=many[0].shape) is many[2]  # "few" has another shape
    assert queue.pop() is few[1]
    many[3].cancel()
    assert queue.take_cancelled() == [many[3]]
    assert queue.pop() is None and len(queue) == 0


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{"fsdp": 4, "tensor": 2}, {"tensor": 4, "sequence": 2}])
def test_a_mesh_gives_the_same(model, alone, eos, axes):
    mesh = make_mesh(MeshConfig(**axes), jax.devices()[:8])
    parameters, rules = flat_parameters(model), Rules()
    shardings = tree_shardings(mesh, rules, parameters, logical_axes(model))
    placed = {name: jax.device_put(x, shardings[name]) for name, x in parameters.items()}
    base = make_engine(model, 1, eos_id=eos, max_length=256)
    base.parameters, base.mesh = placed, mesh
    engine = ContinuousEngine(base, rows=4)
    requests = [(p, min(limit, 8), s) for p, limit, s in mix(model, 8, seed=80)]
    asked = [ask(engine, *request)[1] for request in requests]
    for request, answer in zip(requests, asked, strict=True):
        assert answer.wait() == alone(*request).tokens
    engine.close()


def test_bytes_of_a_row(model, continuous):
    engine = make_engine(model, 1, max_length=256)
    row = cache_row_bytes(engine, 256)
    assert sum(array.nbytes for array in jax.tree.leaves(continuous._state.cache)) == 3 * row
