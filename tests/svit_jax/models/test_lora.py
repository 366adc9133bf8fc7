"""LoRA against the formula W + (alpha / r) a b in NumPy, its sizes, its beginning, its dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as reference
import pytest

from svit_jax.config import load_config, run_config
from svit_jax.models.attention import Packed
from svit_jax.models.lora import LoraConfig, is_lora, merge
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.svit import Svit, SvitConfig, abstract_model, initial_model
from svit_jax.training.optimizer import trainable_paths

RANK, ALPHA, DROPOUT = 5, 15.0, 0.25


@pytest.fixture(scope="module")
def config(small_config) -> SvitConfig:
    return dataclasses.replace(small_config, lora=LoraConfig(RANK, ALPHA, DROPOUT))


@pytest.fixture(scope="module")
def parameters(config, small_parameters) -> dict[str, np.ndarray]:
    """The small model's, and random ones for both of LoRA's factors."""
    rng, found = np.random.default_rng(11), dict(small_parameters)
    for path, shape in sorted(flat_parameters(abstract_model(config)).items()):
        if is_lora(path):
            drawn = 0.2 * rng.standard_normal(shape.shape)
            found[path] = drawn.astype(np.float32).astype(np.float64)
    return found


@pytest.fixture(scope="module")
def model(config, parameters) -> Svit:
    arrays = {path: jnp.asarray(value, jnp.float32) for path, value in parameters.items()}
    return with_parameters(abstract_model(config), arrays)


def added(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every kernel as a matrix, with (alpha / r) times the product of two matrices added."""
    found = {path: value for path, value in parameters.items() if not is_lora(path)}
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        path = f"decoder/blocks/{name}"
        a, b = parameters[f"{path}_lora/a"], parameters[f"{path}_lora/b"]
        kernel = found[path].copy()
        for layer in range(len(kernel)):
            product = a[layer].reshape(-1, RANK) @ b[layer].reshape(RANK, -1)
            kernel[layer] += ALPHA / RANK * product.reshape(kernel[layer].shape)
        found[path] = kernel
    return found


def test_lora_adds_the_product_of_its_factors(model, config, parameters):
    x = np.random.default_rng(12).standard_normal((1, 7, 20)).astype(np.float32)
    seen = Packed(jnp.ones((1, 7), jnp.int32))
    hidden, _ = jax.jit(lambda x: model.decoder(x, jnp.arange(7)[None], seen))(x)
    p = reference.part(added(parameters), "decoder")
    expected = reference.decode(p, config.decoder, x[0].astype(np.float64), np.arange(7))
    np.testing.assert_allclose(hidden[0], expected, rtol=1e-4, atol=2e-5)


def test_merged_equals_unmerged(model, config, parameters):
    arrays = {path: jnp.asarray(value, jnp.float32) for path, value in parameters.items()}
    merged = merge(arrays, config.lora)
    for path, value in added(parameters).items():
        np.testing.assert_allclose(merged[path], value, rtol=0, atol=1e-6, err_msg=path)
    base = dataclasses.replace(config, lora=None)
    assert merged.keys() == flat_parameters(abstract_model(base)).keys()
    plain = with_parameters(abstract_model(base), merged)
    x = jnp.asarray(np.random.default_rng(13).standard_normal((2, 9, 20)), jnp.float32)
    positions, seen = jnp.tile(jnp.arange(9), (2, 1)), Packed(jnp.ones((2, 9), jnp.int32))
    logits = [m.decoder.unembed(m.decoder(x, positions, seen)[0]) for m in (model, plain)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-5)


def test_some_targets_only(config, parameters):
    lora = LoraConfig(RANK, ALPHA, DROPOUT, targets=("v", "down"))
    paths = flat_parameters(abstract_model(dataclasses.replace(config, lora=lora)))
    assert {path for path in paths if is_lora(path)} == {
        f"decoder/blocks/{name}_lora/{factor}" for name in ("v", "down") for factor in "ab"
    }
    merged = merge({path: jnp.asarray(parameters[path]) for path in paths}, lora)
    unchanged = np.asarray(parameters["decoder/blocks/q"], np.float32)
    np.testing.assert_array_equal(merged["decoder/blocks/q"], unchanged)


def test_beginning_is_pefts(config):
    """a from kaiming uniform with a slope of sqrt(5), whose bound is 1 / sqrt(fan in); b zero; and
    a seed gives the same base as without LoRA."""
    wide = dataclasses.replace(config, lora=LoraConfig(400, ALPHA, DROPOUT))
    base = dataclasses.replace(config, lora=None)
    shared = ("decoder/blocks/q", "decoder/unembedding")

    def initial(config: SvitConfig, chosen: list[str]) -> dict[str, jax.Array]:
        def some() -> dict[str, jax.Array]:
            everything = flat_parameters(initial_model(config, 3))
            return {path: everything[path] for path in chosen}

        return jax.jit(some)()

    factors = [path for path in flat_parameters(abstract_model(wide)) if is_lora(path)]
    found = initial(wide, [*factors, *shared])
    for path, value in initial(base, list(shared)).items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    fan_in = {"q": 20, "k": 20, "v": 20, "o": 6 * 8, "gate": 20, "up": 20, "down": 28}
    for name, size in fan_in.items():
        a, b = (np.asarray(found[f"decoder/blocks/{name}_lora/{factor}"]) for factor in "ab")
        bound = np.sqrt(6 / ((1 + 5) * size))
        assert 0.99 * bound < np.abs(a).max() <= bound
        # Of a uniform distribution: mean 0, standard deviation bound / sqrt(3).
        assert abs(a.mean()) < 0.03 * bound and abs(a.std() / bound * np.sqrt(3) - 1) < 0.02
        assert not b.any()


def test_dropout_keeps_the_mean_and_drops_its_share(config):
    """LowRank alone with x = 1 and factors that hand every input through: outputs are the inputs
    that were kept, scaled by 1 / (1 - p)."""
    decoder = dataclasses.replace(config.decoder, layers=1)
    lora = LoraConfig(20, 20.0, DROPOUT, targets=("gate", "up"))
    whole = SvitConfig(config.vision, decoder, lora)
    parameters = flat_parameters(abstract_model(whole))
    for path in ("decoder/blocks/gate_lora", "decoder/blocks/up_lora"):
        parameters |= {f"{path}/a": jnp.eye(20), f"{path}/b": jnp.eye(20, decoder.mlp)}
    block = with_parameters(abstract_model(whole), parameters).decoder.blocks
    x, key = jnp.ones((8, 50, 20)), jax.random.key(0)
    gate, up = (np.asarray(low(x, key))[..., :20] for low in (block.gate_lora, block.up_lora))
    np.testing.assert_allclose(np.unique(gate), [0, 1 / (1 - DROPOUT)], rtol=1e-6)
    # 8,000 draws: four standard deviations of the share are 0.019.
    assert abs((gate == 0).mean() - DROPOUT) < 0.02
    # Each kernel draws for itself, as PEFT's modules do; the same key draws the same.
    assert 0.3 < ((gate == 0) != (up == 0)).mean() < 0.45
    np.testing.assert_array_equal(block.gate_lora(x, key)[..., :20], gate)
    np.testing.assert_array_equal(block.gate_lora(x, None)[..., :20], x)


@pytest.mark.parametrize(
    "size, lora, projector", [("7b", 319_815_680, 20_979_712), ("13b", 500_695_040, 31_467_520)]
)
def test_published_sizes(configs, size, lora, projector):
    """LLaVA-1.5's rank 128 on seven matrices a block, and what its LoRA runs train."""
    data = "data.train=a", "data.tokenizer=b"
    config = run_config(load_config(f"{configs}/svit_v1_5_{size}_lora.py", data))
    shapes = flat_parameters(abstract_model(config.model))
    counts = {path: int(np.prod(shape.shape, dtype=np.int64)) for path, shape in shapes.items()}
    trained = trainable_paths(config.optim.trainable, shapes)
    assert trained == {path for path in counts if is_lora(path) or path.startswith("projector/")}
    assert sum(counts[path] for path in counts if is_lora(path)) == lora
    assert sum(counts[path] for path in trained) == lora + projector
    optim = config.optim
    assert (optim.learning_rate, optim.rates) == (2e-4, ("projector/.*=2e-5",))
    assert config.model.lora == LoraConfig(128, 256.0, 0.05)
    assert config.data.batch_size == 128 and config.compute.frozen_dtype == "bfloat16"
