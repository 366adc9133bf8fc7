"""A model of random parameters that is served, and pictures to ask about."""

import base64
import dataclasses

import jax
import pytest
from served import ScriptedEngine, serving

from svit_jax.api import Assistant, assistant
from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, initial_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules


@pytest.fixture(scope="session")
def tiny_assistant(make_run, tiny_data, tmp_path_factory) -> Assistant:
    """Makes prompts; it has no parameters, as the engine is a stand-in."""
    workdir = tmp_path_factory.mktemp("served")
    write_bundle(workdir, make_run("finetune").model, "v1", "pad", tiny_data.tokenizer)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return assistant(workdir, {}, Compute("float32"), mesh, Rules(), 1, workdir)


@pytest.fixture(scope="session")
def real_assistant(tiny_assistant) -> Assistant:
    model = tiny_assistant.bundle.model
    parameters = flat_parameters(jax.jit(lambda: initial_model(model, 3))())
    engine, workdir = tiny_assistant.engine, tiny_assistant.checkpoint
    return assistant(workdir, parameters, engine.compute, engine.mesh, engine.rules, 1, workdir)


@pytest.fixture(scope="session")
def named(tiny_assistant) -> Assistant:
    """With two adapters, which it can tell apart by number alone."""
    adapted = {
        name: dataclasses.replace(tiny_assistant, adapter=number)
        for number, name in enumerate(("cats", "dogs"), 1)
    }
    return dataclasses.replace(tiny_assistant, adapted=adapted)


@pytest.fixture(scope="session")
def picture(tiny_data) -> bytes:
    return sorted(tiny_data.pictures.rglob("*.jpg"))[0].read_bytes()


@pytest.fixture(scope="session")
def picture_url(picture) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


@pytest.fixture
def parrot(tiny_assistant) -> ScriptedEngine:
    """Says "red or blue ☃."."""
    return ScriptedEngine(tiny_assistant.tokenizer.encode("red or blue ☃."))


@pytest.fixture
def served(tiny_assistant, parrot):
    with serving(tiny_assistant, parrot) as found:
        yield found
