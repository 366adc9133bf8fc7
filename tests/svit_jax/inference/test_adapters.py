"""Adapters side by side: each request gets what the merged model of its adapter gives alone."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lora_runs import random_adapter
from random_prompts import FLOAT32, NEVER, make_prompt

from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.inference.engine import Engine
from svit_jax.inference.sampler import GREEDY
from svit_jax.models.adapters import is_adapted, with_adapters
from svit_jax.models.decoder import PROJECTIONS
from svit_jax.models.int8 import in_int8
from svit_jax.models.lora import LoraConfig, merge
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

CONFIGS = (
    LoraConfig(3, 6.0, 0.1),
    LoraConfig(5, 20.0, 0.0, targets=("q", "v", "down")),
)
NEW = 8


@pytest.fixture(scope="module")
def adapters(model) -> list[tuple[LoraConfig, dict[str, jax.Array]]]:
    base = jax.device_get(flat_parameters(model))
    drawn = [
        (config, random_adapter(model.config, base, config, seed))
        for seed, config in enumerate(CONFIGS)
    ]
    return [(config, jax.device_put(own)) for config, own in drawn]


def engine_of(model, parameters, adapters=(), mesh=None, rows=1):
    """An engine of these parameters; with `adapters` theirs beside them."""
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    configs = [config for config, _ in adapters]
    if adapters:
        structure = abstract_model(model.config, configs)
        shapes, axes = flat_parameters(structure), logical_axes(structure)
        shardings = tree_shardings(mesh, Rules(), shapes, axes)
        parameters = with_adapters(parameters, adapters, shardings, "float32")
    shared = FLOAT32, mesh, Rules(), NEVER, rows, 256
    return Engine(model.config, parameters, *shared, adapters=configs)


@pytest.fixture(scope="module")
def alone(model, adapters):
    """What a base, or an adapter merged into it, answers: from an engine that knows of neither."""
    engine = engine_of(model, flat_parameters(model))

    def answer(prompt, base):
        engine.parameters = base
        if prompt.adapter:
            config, own = adapters[prompt.adapter - 1]
            engine.parameters = merge({**base, **own}, config)
        return next(engine.generate([dataclasses.replace(prompt, adapter=0)], NEW))

    return answer


@pytest.fixture(scope="module")
def prompts(model):
    """Of two buckets, with a picture and with two, each to all three models by turns."""
    shapes = (31, 1), (50, 1), (90, 2)
    made = [make_prompt(model, n, length, pictures) for n, (length, pictures) in enumerate(shapes)]
    return [dataclasses.replace(prompt, adapter=n) for prompt in made for n in range(3)]


@pytest.fixture(scope="module")
def expected(model, alone, prompts):
    base = flat_parameters(model)
    found = [alone(prompt, base) for prompt in prompts]
    # They differ, else nothing would be shown.
    assert len({tuple(each.tokens) for each in found}) == len(found)
    return found


def ask_all(engine, prompts) -> list[tuple[list[int], list[float]]]:
    """The tokens and log-probabilities of requests that are made together."""
    found = [([], []) for _ in prompts]
    done = [threading.Event() for _ in prompts]

    def ask(n, prompt):
        def deliver(tokens, last):
            found[n][0].extend(token.id for token in tokens)
            found[n][1].extend(token.log_probability for token in tokens)
            if last:
                done[n].set()

        engine.submit(prompt, NEW, GREEDY, deliver)

    for n, prompt in enumerate(prompts):
        ask(n, prompt)
    assert all(event.wait(120) for event in done)
    return found


def compare(found, expected):
    for (tokens, logs), alone in zip(found, expected, strict=True):
        assert tokens == alone.tokens
        np.testing.assert_allclose(logs, alone.log_probabilities, atol=1e-4)


def test_a_mix_gives_each_what_its_merged_model_gives(model, adapters, prompts, expected):
    engine = engine_of(model, flat_parameters(model), adapters)
    continuous = ContinuousEngine(engine, rows=4, chunk=3)
    try:
        compare(ask_all(continuous, prompts), expected)
        # Four pictures, each through three projectors.
        assert (continuous.pictures.misses, continuous.pictures.hits) == (12, 0)
        # Rows that had other adapters before.
        back = list(reversed(range(len(prompts))))
        again = ask_all(continuous, [prompts[n] for n in back])
        compare(again, [expected[n] for n in back])
        assert (continuous.pictures.misses, continuous.pictures.hits) == (12, 12)
    finally:
        continuous.close(drain=False)


def test_batches_and_scores_of_the_plain_engine(model, adapters, prompts, expected):
    some, answers = prompts[:6], expected[:6]
    engine = engine_of(model, flat_parameters(model), adapters, rows=6)
    found = [(each.tokens, each.log_probabilities) for each in engine.generate(some, NEW)]
    compare(found, answers)
    scores = engine.score(some, [each.tokens for each in answers])
    for scored, each in zip(scores, answers, strict=True):
        np.testing.assert_allclose(scored, each.log_probabilities, atol=1e-4)
    # One batch, one program of each kind.
    assert engine.programs.compiled() == 3


@pytest.mark.parametrize(
    "axes",
    [
        {"tensor": 4, "sequence": 2},
        pytest.param({"fsdp": 4, "tensor": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_mesh_gives_the_same(model, adapters, prompts, expected, axes):
    mesh = make_mesh(MeshConfig(**axes), jax.devices()[:8])

    def laid(config, parameters, chosen):
        structure = abstract_model(config)
        shapes, axes = flat_parameters(structure), logical_axes(structure)
        shardings = tree_shardings(mesh, Rules(), shapes, axes)
        return {p: jax.device_put(x, shardings[p]) for p, x in parameters.items() if chosen(p)}

    placed = [
        (config, laid(dataclasses.replace(model.config, lora=config), own, is_adapted))
        for config, own in adapters
    ]
    base = laid(model.config, flat_parameters(model), lambda path: True)
    continuous = ContinuousEngine(engine_of(model, base, placed, mesh), rows=4)
    try:
        compare(ask_all(continuous, prompts), expected)
    finally:
        continuous.close(drain=False)


def test_beside_a_base_in_int8(model, adapters, prompts, alone):
    """As the adapter merged into the kernels that the rounded ones stand for."""
    base = flat_parameters(model)
    rounded = in_int8(base)
    plain = dict(base)
    for name in PROJECTIONS:
        path, inputs = f"decoder/blocks/{name}", (1, 2) if name == "o" else (1,)
        scale = np.expand_dims(np.asarray(rounded[f"{path}_scale"]), inputs)
        plain[path] = jnp.asarray(np.asarray(rounded[path]) * scale)
    continuous = ContinuousEngine(engine_of(model, rounded, adapters), rows=4)
    try:
        compare(ask_all(continuous, prompts[:6]), [alone(each, plain) for each in prompts[:6]])
    finally:
        continuous.close(drain=False)


def test_an_adapter_takes_its_own_rank_and_projector(model, adapters):
    """(inputs + outputs) x rank numbers of each layer and target, and a projector's."""
    base = flat_parameters(model)
    engine = engine_of(model, base, adapters)
    size = sum(array.nbytes for array in engine.parameters.values())
    decoder, vision = model.config.decoder, model.config.vision
    heads, kv = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    embed, mlp = decoder.embed, decoder.mlp
    sides = {
        "q": embed + heads,
        "k": embed + kv,
        "v": embed + kv,
        "o": heads + embed,
        **dict.fromkeys(("gate", "up", "down"), embed + mlp),
    }
    numbers = sum(
        decoder.layers * config.rank * sum(sides[name] for name in config.targets)
        for config in CONFIGS
    )
    numbers += len(CONFIGS) * (vision.embed * embed + embed + embed * embed + embed)
    assert size == sum(array.nbytes for array in base.values()) + 4 * numbers
