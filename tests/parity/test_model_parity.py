"""Tower, decoder and whole model against transformers in float32: logits, loss, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity_samples import Sample, batch_of, llava_inputs, random_sample
from torch_reference import (
    SHAPES,
    gradients,
    our_parameters,
    pixel_values,
    random_decoder,
    random_llava,
    random_tower,
    to_our_layout,
)

from data_pipeline.loading.batch import Batch
from svit_jax.models.attention import Packed
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.svit import Compute, Svit, SvitConfig, abstract_model
from svit_jax.training.objective import batch_sums

FLOAT32 = Compute("float32")
LOGITS = LOSS = 1e-5
GRADIENT = 1e-4


@pytest.fixture(scope="module", params=SHAPES)
def config(request) -> SvitConfig:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def reference(config):
    return random_llava(config, seed=1)


@pytest.fixture(scope="module")
def parameters(reference, config) -> dict[str, np.ndarray]:
    return our_parameters(reference, config)


@pytest.fixture(scope="module")
def model(config, parameters) -> Svit:
    arrays = {path: jnp.asarray(value) for path, value in parameters.items()}
    return with_parameters(abstract_model(config), arrays)


@pytest.fixture(scope="module")
def samples(config) -> list[Sample]:
    """Ragged: no picture, one, one at another place, three."""
    rng = np.random.default_rng(2)
    return [random_sample(config, rng, w, m) for w, m in ((11, 0), (9, 1), (23, 1), (14, 3))]


def logits_of(model: Svit, batch: Batch) -> np.ndarray:
    @jax.jit
    def run(*fields):
        return model.decoder.unembed(model.hidden(*fields, FLOAT32))

    fields = (batch.tokens, batch.segment_ids, batch.positions, batch.images, batch.vision_index)
    return np.asarray(run(*fields))


def separate_rows(config: SvitConfig, samples: list[Sample]) -> Batch:
    return batch_of(config, [[sample] for sample in samples], max(map(len, samples)) + 3, 3)


def test_the_mapping_gives_every_parameter_its_shape(config, parameters):
    expected = flat_parameters(abstract_model(config))
    assert {p: v.shape for p, v in parameters.items()} == {p: v.shape for p, v in expected.items()}


def part_with(config: SvitConfig, some: dict[str, np.ndarray]) -> Svit:
    """A model of which only some parameters have values."""
    structure = abstract_model(config)
    arrays = {path: jnp.asarray(value) for path, value in some.items()}
    return with_parameters(structure, {**flat_parameters(structure), **arrays})


def test_tower_alone(config, differences):
    reference = random_tower(config.vision, seed=3)
    ours = our_parameters(reference, config)
    whole = {
        **flat_parameters(abstract_model(config)),
        **{p: jnp.asarray(v) for p, v in ours.items()},
    }
    tower = with_parameters(abstract_model(config), whole).tower
    rng, size = np.random.default_rng(4), config.vision.image_size
    images = rng.integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    with torch.no_grad():
        states = reference(pixel_values(images), output_hidden_states=True).hidden_states
    features = jax.jit(lambda x: tower(x, jnp.dtype("float32")))(images)
    differences.absolute("tower features", features, states[-2][:, 1:], LOGITS)


def test_decoder_alone(config, differences):
    reference = random_decoder(config.decoder, seed=5)
    decoder = part_with(config, our_parameters(reference, config)).decoder
    tokens = np.random.default_rng(6).integers(0, config.decoder.vocab, (3, 17))
    with torch.no_grad():
        expected = reference(torch.from_numpy(tokens)).logits.numpy()

    @jax.jit
    def run(tokens):
        positions = jnp.broadcast_to(jnp.arange(17)[None], tokens.shape)
        x = decoder.embed(tokens, jnp.dtype("float32"))
        hidden, _ = decoder(x, positions, Packed(jnp.ones_like(tokens)))
        return decoder.unembed(hidden)

    differences.absolute("decoder logits", run(tokens), expected, LOGITS)


def test_logits_of_ragged_samples(config, reference, model, samples, differences):
    with torch.no_grad():
        inputs = llava_inputs(config, samples)
        inputs.pop("labels")
        expected = reference(**inputs).logits.numpy()
    found = logits_of(model, separate_rows(config, samples))
    for row, sample in enumerate(samples):
        here = slice(len(sample))
        what = "whole model logits, padded rows"
        differences.absolute(what, found[row, here], expected[row, here], LOGITS)


def test_logits_of_packed_rows(config, reference, model, samples, differences):
    """All four samples in one row, with the pictures in its slots, against each one alone."""
    batch = batch_of(config, [samples], sum(map(len, samples)) + 5, 6)
    found, start = logits_of(model, batch)[0], 0
    for sample in samples:
        with torch.no_grad():
            inputs = llava_inputs(config, [sample])
            inputs.pop("labels")
            expected = reference(**inputs).logits[0].numpy()
        here = found[start : start + len(sample)]
        differences.absolute("whole model logits, packed rows", here, expected, LOGITS)
        start += len(sample)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_loss_and_gradients(config, reference, parameters, samples, packed, differences):
    """Of every stored tensor, the tower's too; the loss is the mean over all target tokens."""
    reference.zero_grad()
    loss = reference(**llava_inputs(config, samples)).loss
    loss.backward()
    expected = to_our_layout(gradients(reference), config)

    if packed:
        batch = batch_of(config, [samples[:2], samples[2:]], 2 * max(map(len, samples)), 4)
    else:
        batch = separate_rows(config, samples)
    structure = abstract_model(config)

    @jax.jit
    @jax.value_and_grad
    def ours(parameters, batch):
        sums = batch_sums(with_parameters(structure, parameters), batch, FLOAT32, 8)
        return sums.loss / sums.weight

    found, grads = ours({p: jnp.asarray(v) for p, v in parameters.items()}, batch)
    differences.absolute("loss", found, loss.detach(), LOSS)
    assert grads.keys() == expected.keys()
    # A key's bias adds the same to all scores of a query, so a softmax has no gradient for it; what
    # either side finds is rounding, and is held to the size of the query bias's gradient.
    rounding = grads.pop("tower/blocks/k_bias") - expected["tower/blocks/k_bias"]
    largest = np.abs(expected["tower/blocks/q_bias"]).max()
    assert np.abs(rounding).max() <= GRADIENT * largest
    for path, grad in grads.items():
        differences.relative("gradients of every tensor", grad, expected[path], GRADIENT, path)
