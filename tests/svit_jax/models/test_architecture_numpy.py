"""Tower, projector and decoder against the NumPy statement of what was published."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as reference
import pytest

from svit_jax.models.attention import Packed
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.presets import PRESETS
from svit_jax.models.svit import Compute, abstract_model

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
"""Of float32 against float64, over two or three layers of width 20."""


def pictures(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_decoder_is_llama(small_model, small_parameters):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 7, 20)).astype(np.float32)
    positions = np.stack([np.arange(7), np.arange(7) + 30]).astype(np.int32)
    seen = Packed(jnp.ones((2, 7), jnp.int32))
    decoder = small_model.decoder
    hidden, cache = jax.jit(lambda *a: decoder(*a))(x, positions, seen)
    assert cache is None
    p = reference.part(small_parameters, "decoder")
    for row in range(2):
        expected = reference.decode(p, decoder.config, x[row].astype(np.float64), positions[row])
        np.testing.assert_allclose(hidden[row], expected, **TOLERANCE)
        logits = decoder.unembed(hidden)[row]
        assert logits.dtype == jnp.float32
        np.testing.assert_allclose(logits, expected @ p["unembedding"].T, **TOLERANCE)


def test_tower_is_clip(small_model, small_parameters):
    images = pictures(2, 12)
    tower = small_model.tower
    features = jax.jit(lambda x: tower(x, jnp.dtype("float32")))(images)
    assert features.shape == (2, 9, 24)
    p = reference.part(small_parameters, "tower")
    for image, found in zip(images, features, strict=True):
        np.testing.assert_allclose(found, reference.see(p, tower.config, image), **TOLERANCE)


def test_projector_is_linear_gelu_linear(small_model, small_parameters):
    features = np.random.default_rng(3).standard_normal((2, 9, 24)).astype(np.float32)
    p = reference.part(small_parameters, "projector")
    expected = reference.project(p, features.astype(np.float64))
    np.testing.assert_allclose(small_model.projector(jnp.asarray(features)), expected, **TOLERANCE)


def test_whole_model_splices_patches_in(small_model, small_parameters):
    """One sequence: two words, the second picture's patches, a word, the first picture's first."""
    images = pictures(2, 12)
    tokens = np.array([5, 9, *[0] * 9, 11, 0], np.int32)
    index = np.array([-1, -1, *range(9, 18), -1, 0], np.int32)
    one = np.ones((1, len(tokens)), np.int32)
    positions = np.arange(len(tokens), dtype=np.int32)[None]
    compute = Compute("float32")
    hidden = jax.jit(lambda *a: small_model.hidden(*a, compute))(
        tokens[None], one, positions, images[None], index[None]
    )
    p = {name: reference.part(small_parameters, name) for name in ("tower", "projector", "decoder")}
    config = small_model.config
    seen = [reference.project(p["projector"], reference.see(p["tower"], config.vision, image))
            for image in images]  # fmt: skip
    words = p["decoder"]["embedding"]
    x = np.stack([words[5], words[9], *seen[1], words[11], seen[0][0]])
    expected = reference.decode(p["decoder"], config.decoder, x, positions[0])
    # Two towers deep, float32 has lost a digit more.
    np.testing.assert_allclose(hidden[0], expected, rtol=1e-3, atol=2e-4)


def test_bfloat16_computes_norms_and_logits_in_float32(small_model):
    x = jnp.asarray(np.random.default_rng(5).standard_normal((1, 3, 20)), jnp.bfloat16)
    normed = small_model.decoder.norm(x)
    wide = np.asarray(x, np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5)
    rounded = jnp.asarray(expected, jnp.bfloat16) * small_model.decoder.norm.scale[...].astype(
        jnp.bfloat16
    ).reshape(1, 1, -1)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(normed, np.float32), np.asarray(rounded, np.float32))
    assert small_model.decoder.unembed(x).dtype == jnp.float32


@pytest.mark.parametrize(
    "size, expected",
    [
        ("7b", {"tower": 290_909_184, "projector": 20_979_712, "decoder": 6_738_415_616}),
        ("13b", {"tower": 290_909_184, "projector": 31_467_520, "decoder": 13_015_864_320}),
    ],
)
def test_published_parameter_counts(size, expected):
    from svit_jax.config import default_config, model_config

    assert set(PRESETS[size]) == {"vision", "decoder"}
    config = model_config(default_config(size).model.to_dict())
    counts: dict[str, int] = {}
    for path, shape in flat_parameters(abstract_model(config)).items():
        room = path.split("/")[0]
        counts[room] = counts.get(room, 0) + int(np.prod(shape.shape, dtype=np.int64))
    assert counts == expected


def test_published_tower_has_one_block_and_a_norm_more():
    """CLIP's file holds block 24 and the post-norm (scale and bias) too. They are neither stored
    nor run here, because the feature is the second-last layer's."""
    from svit_jax.config import default_config, model_config

    config = model_config(default_config("7b").model.to_dict())
    last = dataclasses.replace(config.vision, feature_layer=-1)
    shapes = flat_parameters(abstract_model(dataclasses.replace(config, vision=last)))
    tower = [shape for path, shape in shapes.items() if path.startswith("tower/")]
    count = sum(int(np.prod(shape.shape, dtype=np.int64)) for shape in tower)
    assert count + 2 * config.vision.embed == 303_507_456
