"""bfloat16 compute against float32, with bounds that follow from its unit roundoff u = 2^-8.

A rounding to nearest has a relative error of at most u, and, over numbers of all sizes, one of
about 0.41 u in the root mean square. Independent roundings add up in squares: n of them make
0.41 u sqrt(n).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svit_jax.models.attention import Packed, attention, packed_mask
from svit_jax.models.decoder import RmsNorm
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, abstract_model

U, ONE = 2.0**-8, 0.41


def error(found, expected) -> float:
    """Root mean square of the difference, relative to that of what is expected, in units of u."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return math.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) / U


def narrow_attention(q, k, v, mask):
    """Attention whose scores and softmax are bfloat16: what must not happen."""
    groups = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
    scores = jnp.einsum("BTNH,BSNH->BNTS", q, k) / jnp.asarray(q.shape[-1] ** 0.5, q.dtype)
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, -jnp.inf)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return jnp.einsum("BNTS,BSNH->BTNH", weights, v)


def narrow_norm(self, x):
    """RMSNorm in x's own dtype: what must not happen."""
    eps, scale = jnp.asarray(self.eps, x.dtype), self.scale[...].astype(x.dtype)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps) * scale[None, None]


@pytest.mark.parametrize("spread", [1, 2, 3])
def test_attention_rounds_its_weights_and_its_output_alone(spread):
    """Two roundings: of the softmax's weights and of the result. Scores and softmax are float32: in
    bfloat16, a score of 8 is off by up to 8 u, and the bound says so."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 256, 4, 64))
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in (spread * q, k, v))
    seen = Packed(jnp.ones((2, 256), jnp.int32))
    mask = packed_mask(seen.segment_ids)
    expected = attention(*(x.astype(jnp.float32) for x in (q, k, v)), seen)
    bound = 1.15 * ONE * math.sqrt(2)
    assert error(attention(q, k, v, seen), expected) < bound
    assert error(narrow_attention(q, k, v, mask), expected) > 1.4 * bound


@pytest.mark.parametrize("width", [64, 1024, 4096])
def test_norm_rounds_its_output_alone(width):
    """One rounding (a scale of ones adds none). In bfloat16 the root is rounded too, and the bound
    says so."""
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 256, width)), jnp.bfloat16)
    norm = RmsNorm((width,), ("embed",), 1e-5)
    expected = norm(x.astype(jnp.float32))
    bound = 1.15 * ONE
    assert error(norm(x), expected) < bound
    assert error(narrow_norm(norm, x), expected) > 1.2 * bound


def test_logits_of_the_whole_model(stored_reference):
    """On its way through a block, the stream meets about 20 roundings: of norms, weights, products,
    activations and sums; and about 12 before, between and behind the two towers. Each is counted as
    if it reached the stream whole, though a block only adds to it: so this is an upper bound. It
    is too wide to see a norm or a softmax in bfloat16 (they add 1 to 4 % here): the two tests
    above see those.
    """
    config, arrays = stored_reference.config, stored_reference.arrays
    model = with_parameters(abstract_model(config), stored_reference.parameters)
    names = "tokens", "segment_ids", "positions", "images", "vision_index"
    batch = [arrays[f"batch/{name}"] for name in names]
    real = arrays["batch/segment_ids"] > 0

    def logits(compute: Compute) -> np.ndarray:
        run = jax.jit(lambda *fields: model.decoder.unembed(model.hidden(*fields, compute)))
        return np.asarray(run(*batch))[real]

    blocks = config.vision.stored_layers + config.decoder.layers
    found = error(logits(Compute("bfloat16")), logits(Compute("float32")))
    assert 1 < found < ONE * math.sqrt(20 * blocks + 12)
