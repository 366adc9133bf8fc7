"""The chunked loss over targets alone, against cross entropy of all logits at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.svit import Compute, Svit, initial_model
from svit_jax.training.objective import token_sums

B, T = 3, 13


@pytest.fixture(scope="module")
def model(make_run) -> Svit:
    return initial_model(make_run("finetune").model, 0)


@pytest.fixture(scope="module")
def case(model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = (rng.random((B, T)) < 0.4).astype(np.float32)
    weights[:, 0] = 0  # a segment's first token is never a target
    weights[0, T - 1] = 1  # the last token may be one
    weights[2] = 0  # a row without targets
    width = model.config.decoder.embed
    return {
        "hidden": rng.standard_normal((B, T, width)).astype(np.float32),
        "tokens": rng.integers(0, model.config.decoder.vocab, (B, T)).astype(np.int32),
        "weights": weights,
    }


def plain(unembedding, hidden, tokens, weights):
    """tokens[b, t] is what position t-1 predicts: the statement of the contract, by slices."""
    logits = jnp.einsum("BTD,VD->BTV", hidden[:, :-1], unembedding)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    hits = (logits.argmax(-1) == tokens[:, 1:]) & (weights[:, 1:] > 0)
    return (losses * weights[:, 1:]).sum(), weights[:, 1:].sum(), hits.sum()


@pytest.mark.parametrize("chunk", [1, 4, 13, 256])
def test_chunked_loss_is_plain_cross_entropy(model, case, chunk):
    parameters = flat_parameters(model)
    unembedding = parameters["decoder/unembedding"]

    def chunked(unembedding, hidden):
        changed = {**parameters, "decoder/unembedding": unembedding}
        given = with_parameters(model, changed)
        tokens, weights = jnp.asarray(case["tokens"]), jnp.asarray(case["weights"])
        sums = token_sums(given, hidden, tokens, weights, chunk)
        return sums.loss, sums

    def whole(unembedding, hidden):
        return plain(unembedding, hidden, case["tokens"], case["weights"])[0]

    grad = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1), has_aux=True))
    (loss, sums), found = grad(unembedding, case["hidden"])
    expected = plain(unembedding, case["hidden"], case["tokens"], case["weights"])
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    assert (float(sums.weight), float(sums.correct)) == (float(expected[1]), float(expected[2]))
    gradients = jax.jit(jax.grad(whole, argnums=(0, 1)))(unembedding, case["hidden"])
    for mine, theirs in zip(found, gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)
    assert not np.asarray(found[1][2]).any()


def test_weight_zero_everywhere_is_loss_zero(model, case):
    tokens, hidden = jnp.asarray(case["tokens"]), jnp.asarray(case["hidden"])
    sums = token_sums(model, hidden, tokens, jnp.zeros((B, T)), 4)
    assert [float(value) for value in sums] == [0, 0, 0]


def test_weights_scale_each_target(model, case):
    """The loss is a weighted sum, so linear in the weights; hits count targets, unweighted."""
    arrays = {name: jnp.asarray(value) for name, value in case.items()}
    one = token_sums(model, arrays["hidden"], arrays["tokens"], arrays["weights"], 4)
    half = token_sums(model, arrays["hidden"], arrays["tokens"], arrays["weights"] / 2, 4)
    np.testing.assert_allclose(half.loss, one.loss / 2, rtol=1e-6)
    assert (float(half.weight), float(half.correct)) == (float(one.weight) / 2, float(one.correct))


def test_accuracy_counts_right_targets_only(model):
    """Hidden states that point at the next token are hits; masked places don't count."""
    unembedding = np.asarray(model.decoder.unembedding[...])
    tokens = np.array([[7, 3, 9, 4, 8]], np.int32)
    hidden = 100 * unembedding[np.roll(tokens, -1, axis=1)]
    hidden[0, 1] *= -1
    weights = np.array([[0, 1, 1, 0, 1]], np.float32)
    arrays = map(jnp.asarray, (hidden, tokens, weights))
    sums = token_sums(model, *arrays, 2)
    assert (float(sums.weight), float(sums.correct)) == (3, 2)


def test_loss_of_a_batch_is_the_mean_over_its_targets(model):
    """batch_sums reads the batch's fields by their meaning: against the model called by hand."""
    from data_pipeline.loading.batch import Batch
    from svit_jax.training.objective import batch_sums

    rng = np.random.default_rng(1)
    size, length = model.config.vision.image_size, 24
    index = np.full((2, length), -1, np.int32)
    index[0, 3:19] = np.arange(16)
    batch = Batch(
        tokens=rng.integers(0, 400, (2, length)).astype(np.int32),
        loss_weights=np.repeat([[0.0] * 20 + [1.0] * 4], 2, axis=0).astype(np.float32),
        segment_ids=np.repeat([[1] * 22 + [0] * 2], 2, axis=0).astype(np.int32),
        positions=np.repeat([[*range(22), 0, 1]], 2, axis=0).astype(np.int32),
        images=rng.integers(0, 256, (2, 1, size, size, 3)).astype(np.uint8),
        vision_index=index,
    )
    compute = Compute("float32")
    batch.loss_weights[:, 22:] = 0
    sums = jax.jit(lambda b: batch_sums(model, b, compute, 8))(batch)
    hidden = jax.jit(lambda *a: model.hidden(*a, compute))(
        batch.tokens, batch.segment_ids, batch.positions, batch.images, batch.vision_index
    )
    unembedding = model.decoder.unembedding[...]
    expected = plain(unembedding, hidden, batch.tokens, batch.loss_weights)
    np.testing.assert_allclose(sums.loss / sums.weight, expected[0] / expected[1], rtol=1e-5)
    assert float(sums.weight) == 4
