"""Tower, decoder, whole model, loss and gradients against stored outputs of transformers.

Live, at more shapes and for every tensor, it is tests/parity/test_model_parity.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.loading.batch import Batch
from svit_jax.models.attention import Packed
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, Svit, abstract_model
from svit_jax.training.objective import batch_sums

FLOAT32 = Compute("float32")
LOGITS = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def arrays(stored_reference) -> dict[str, np.ndarray]:
    return stored_reference.arrays


@pytest.fixture(scope="module")
def model(stored_reference) -> Svit:
    return with_parameters(abstract_model(stored_reference.config), stored_reference.parameters)


@pytest.fixture(scope="module")
def batch(arrays) -> Batch:
    start = "batch/"
    return Batch(**{n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)})


def test_tower(model, arrays):
    images = arrays["prompts/2/images"]
    found = jax.jit(lambda x: model.tower(x, jnp.dtype("float32")))(images)
    np.testing.assert_allclose(found, arrays["features"], **LOGITS)


def test_decoder(model, arrays):
    tokens = arrays["prompts/0/tokens"][None]

    @jax.jit
    def run(tokens):
        x = model.decoder.embed(tokens, jnp.dtype("float32"))
        positions = jnp.arange(tokens.shape[1])[None]
        hidden, _ = model.decoder(x, positions, Packed(jnp.ones_like(tokens)))
        return model.decoder.unembed(hidden)

    np.testing.assert_allclose(run(tokens)[0], arrays["decoder_logits"], **LOGITS)


def test_whole_model_in_packed_rows(model, arrays, batch):
    """The first row packs samples 0 and 1, the second holds sample 2."""

    @jax.jit
    def run(*fields):
        return model.decoder.unembed(model.hidden(*fields, FLOAT32))

    found = run(batch.tokens, batch.segment_ids, batch.positions, batch.images, batch.vision_index)
    for number, (row, segment) in enumerate(((0, 1), (0, 2), (1, 1))):
        here = batch.segment_ids[row] == segment
        np.testing.assert_allclose(found[row, here], arrays[f"logits/{number}"], **LOGITS)


def test_loss_and_gradients(stored_reference, arrays, batch):
    structure, start = abstract_model(stored_reference.config), "gradients/"
    names = [name.removeprefix(start) for name in arrays if name.startswith(start)]

    @jax.jit
    @jax.value_and_grad
    def run(some, batch):
        model = with_parameters(structure, {**stored_reference.parameters, **some})
        sums = batch_sums(model, batch, FLOAT32, 16)
        return sums.loss / sums.weight

    loss, grads = run({name: stored_reference.parameters[name] for name in names}, batch)
    assert abs(float(loss) - float(arrays["loss"])) < 1e-5
    assert len(names) == 5
    for name in names:
        expected = arrays[start + name]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-4 * largest, err_msg=name)
