"""Layers by themselves, as a CPU decodes: they answer as the scan over their stack does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_prompts import FLOAT32, NEVER, make_engine, make_prompt

from svit_jax.inference.engine import Engine
from svit_jax.inference.sampler import Sampling
from svit_jax.models import unstacked
from svit_jax.models.int8 import has_scales, in_int8
from svit_jax.models.lora import LoraConfig
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import SvitConfig, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

SAMPLINGS = [Sampling(), Sampling(0.8, top_p=0.9, seed=5, repetition_penalty=1.2)]


@pytest.fixture(scope="module")
def with_lora(model):
    lora = LoraConfig(rank=4, alpha=8.0, targets=("q", "o", "down"))
    config = SvitConfig(model.config.vision, model.config.decoder, lora)
    made = jax.jit(lambda: initial_model(config, 3))()
    for name in lora.targets:  # b starts at zero, and would add nothing
        b = getattr(made.decoder.blocks, f"{name}_lora").b
        b.set_value(0.1 * jax.random.normal(jax.random.key(7), b.shape))
    return made


def answers(model, parameters, int8_cache: bool):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    where = FLOAT32, mesh, Rules(), NEVER, 2
    engine = Engine(model.config, parameters, *where, int8_cache=int8_cache)
    prompts = [make_prompt(model, n, length) for n, length in enumerate((31, 25))]
    completions = list(engine.generate(prompts, 12, SAMPLINGS))
    scores = list(engine.score(prompts, [completion.tokens for completion in completions]))
    return engine, completions, scores


# Sums in another order differ in their last bits, and a key at the border of two whole numbers is
# rounded to the other: a step of a 127th of its vector's largest value.
@pytest.mark.parametrize(
    "kind, atol", [("plain", 2e-5), ("int8", 2e-5), ("int8 cache", 1e-3), ("lora", 2e-5)]
)
def test_they_answer_as_the_scan_does(request, monkeypatch, kind, atol):
    model = request.getfixturevalue("with_lora" if kind == "lora" else "model")
    parameters = flat_parameters(model)
    if kind.startswith("int8"):
        parameters = in_int8(parameters)
    apart, found, found_scores = answers(model, parameters, kind == "int8 cache")
    monkeypatch.setattr(unstacked, "suits", lambda mesh: False)
    stacked, expected, expected_scores = answers(model, parameters, kind == "int8 cache")
    assert "decoder/layers/1/q" in apart.parameters
    assert "decoder/layers/1/q" not in stacked.parameters
    for a, b in zip(found, expected, strict=True):
        assert a.tokens == b.tokens
        np.testing.assert_allclose(a.log_probabilities, b.log_probabilities, atol=atol)
    for a, b in zip(found_scores, expected_scores, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_kernels_lie_outputs_first_and_all_else_as_it_was(model):
    parameters = in_int8(flat_parameters(model))
    found = unstacked.unstacked(parameters)
    assert has_scales(found)
    assert sum(x.size for x in found.values()) == sum(x.size for x in parameters.values())
    q, o = (np.asarray(parameters[f"decoder/blocks/{name}"]) for name in "qo")
    np.testing.assert_array_equal(found["decoder/layers/1/q"], q[1].reshape(len(q[1]), -1).T)
    np.testing.assert_array_equal(found["decoder/layers/1/o"], o[1].reshape(-1, o.shape[-1]).T)
    scale = parameters["decoder/blocks/q_scale"]
    np.testing.assert_array_equal(found["decoder/layers/0/q_scale"], scale[0])
    assert found["decoder/embedding"] is parameters["decoder/embedding"]
    assert unstacked.unstacked(found) == found


def test_stacks_that_are_spent_are_gone_and_the_others_stay(model):
    parameters = {path: jnp.array(x) for path, x in flat_parameters(model).items()}
    unstacked.unstacked(parameters, spend=True)
    for path, array in parameters.items():
        assert array.is_deleted() == path.startswith("decoder/blocks/")


def test_other_parameters_may_take_their_place(model):
    """As training's evaluations do, whose parameters are stacked."""
    engine = make_engine(model, 1)
    prompt = make_prompt(model, 0, 25)
    (expected,) = engine.generate([prompt], 4)
    parameters, engine.parameters = engine.parameters, {}
    engine.parameters = flat_parameters(model)
    assert engine.parameters.keys() == parameters.keys()
    assert list(engine.generate([prompt], 4)) == [expected]
