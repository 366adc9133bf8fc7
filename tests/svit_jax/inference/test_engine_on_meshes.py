"""Eight simulated devices answer as one does: greedy, drawn and scored."""

import jax
import numpy as np
import pytest
from random_prompts import FLOAT32, NEVER, make_engine, make_prompt

from svit_jax.inference.engine import Engine
from svit_jax.inference.sampler import GREEDY, Sampling
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import Svit, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

NEW = 6
SAMPLINGS = [
    GREEDY,
    Sampling(1.2, seed=3),
    Sampling(repetition_penalty=1.5),
    Sampling(0.8, top_k=20, top_p=0.9, seed=4),
]


@pytest.fixture(scope="module")
def model(make_run) -> Svit:
    config = make_run("finetune").model
    return jax.jit(lambda: initial_model(config, 3))()


@pytest.fixture(scope="module")
def prompts(model):
    return [make_prompt(model, n, length) for n, length in enumerate((24, 31, 60, 40))]


def outcome(engine: Engine, prompts):
    completions = list(engine.generate(prompts, NEW, SAMPLINGS))
    streamed = [token.id for token in engine.stream(prompts[1], NEW, SAMPLINGS[1])]
    logs = [completion.log_probabilities for completion in completions]
    scored = list(engine.score(prompts, [[5, 9, 11]] * len(prompts)))
    return [c.tokens for c in completions], streamed, np.array([*logs]), np.array(scored)


@pytest.fixture(scope="module")
def on_one(model, prompts):
    return outcome(make_engine(model, 1), prompts)


@pytest.mark.parametrize(
    "mesh, batch_size, rows",
    [
        pytest.param(MeshConfig(fsdp=4, tensor=2), 8, 8, marks=pytest.mark.slow),
        # Rows are as many as the mesh divides; pictures lie where rows do.
        (MeshConfig(fsdp=1, tensor=4, sequence=2), 1, 2),
    ],
)
def test_a_mesh_answers_as_one_device(model, prompts, on_one, mesh, batch_size, rows):
    devices, rules = make_mesh(mesh), Rules()
    parameters = flat_parameters(model)
    shardings = tree_shardings(devices, rules, parameters, logical_axes(model))
    laid = {name: jax.device_put(array, shardings[name]) for name, array in parameters.items()}
    engine = Engine(model.config, laid, FLOAT32, devices, rules, NEVER, batch_size)
    assert engine.batch_size == rows
    tokens, streamed, logs, scored = outcome(engine, prompts)
    assert tokens == on_one[0]
    assert streamed == on_one[1] == tokens[1]
    np.testing.assert_allclose(logs, on_one[2], atol=5e-5)
    np.testing.assert_allclose(scored, on_one[3], atol=5e-5)
    # One program of each kind, however often it was called.
    assert engine.programs.compiled() == 3
