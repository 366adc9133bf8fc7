"""Greedy answers against stored ones of transformers' `generate`, token for token."""

import jax

from svit_jax.inference.engine import Engine, Prompt
from svit_jax.models.svit import Compute
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

NEVER = -1
"""An eos id that no token has."""


def test_greedy_answers(stored_reference):
    arrays, config = stored_reference.arrays, stored_reference.config
    fields = "tokens", "vision_index", "images"
    prompts = [Prompt(*(arrays[f"prompts/{n}/{field}"] for field in fields)) for n in range(3)]
    expected = [arrays[f"answers/{n}"].tolist() for n in range(3)]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    engine = Engine(
        config, stored_reference.parameters, Compute("float32"), mesh, Rules(), NEVER, batch_size=2
    )
    found = engine.generate(prompts, len(expected[0]))
    assert [completion.tokens for completion in found] == expected
