"""The schedule in closed form, what trains and what does not, and each group's rate."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipeline.common.errors import UserError
from svit_jax.training.optimizer import (
    OptimConfig,
    make_optimizer,
    trainable_paths,
    warmup_cosine,
    warmup_stable_decay,
)

PATHS = ["projector/fc1", "projector/fc2", "decoder/blocks/q", "decoder/norm/scale", "tower/pre"]


def cosine_with_warmup(step: int, steps: int, warmup_ratio: float) -> float:
    """Hugging Face's get_cosine_schedule_with_warmup, with TrainingArguments' ceil."""
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


@pytest.mark.parametrize("steps, ratio", [(5198, 0.03), (100, 0.03), (7, 0.5), (10, 0.0), (3, 1.0)])
def test_schedule_is_hugging_faces(steps, ratio):
    rate = warmup_cosine(2e-5, steps, ratio)
    places = sorted({0, 1, 2, steps // 3, steps // 2, steps - 1, steps})
    found = [float(rate(jnp.asarray(s))) for s in places]
    expected = [2e-5 * cosine_with_warmup(s, steps, ratio) for s in places]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-11)


def test_llava_logs_this_rate():
    """LLaVA issue 601: after 22 updates of 5,198, 2.8205e-6, which is 22/156 of 2e-5."""
    rate = warmup_cosine(2e-5, 5198, 0.03)
    assert float(rate(jnp.asarray(22))) == pytest.approx(2.8205e-6, rel=1e-4)
    assert float(rate(jnp.asarray(156))) == pytest.approx(2e-5, rel=1e-6)


@pytest.mark.parametrize(
    "steps, warmup, decay", [(1000, 30, 400), (100, 0, 20), (10, 5, 5), (8, 2, 0)]
)
def test_stable_decay_is_optaxs_pieces_joined(steps, warmup, decay):
    rate = warmup_stable_decay(2e-3, steps, warmup / steps, decay / steps)
    pieces = [
        optax.linear_schedule(0.0, 2e-3, warmup),
        optax.constant_schedule(2e-3),
        optax.linear_schedule(2e-3, 0.0, decay),
    ]
    expected = optax.join_schedules(pieces, [warmup, steps - decay])
    for step in range(steps):
        np.testing.assert_allclose(rate(jnp.asarray(step)), expected(step), rtol=1e-5, atol=1e-9)


def test_rates_of_a_run_follow_the_decay_ratio():
    config = OptimConfig(1.0, (".*",), warmup_ratio=0.25, decay_ratio=0.5, b1=0.0, eps=1e-30)
    optimizer = make_optimizer(config, 8, ["a"])
    parameters = {"a": jnp.ones(2)}
    state = optimizer.init(parameters)
    found = []
    for _ in range(8):
        updates, state = optimizer.update({"a": jnp.ones(2)}, state, parameters)
        found.append(-float(updates["a"][0]))
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 1, 0.75, 0.5, 0.25], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup, decay", [(0.5, 0.6), (-0.1, 0.5), (0.03, 1.1), (0.03, -0.2)])
def test_ratios_that_do_not_add_up_are_said(warmup, decay):
    config = OptimConfig(1e-3, (".*",), warmup_ratio=warmup, decay_ratio=decay)
    with pytest.raises(UserError, match="together are at most 1"):
        make_optimizer(config, 10, ["a"])


def test_first_update_has_rate_zero():
    optimizer = make_optimizer(OptimConfig(1e-3, (".*",), warmup_ratio=0.5), 10, ["a"])
    parameters = {"a": jnp.ones(3)}
    state = optimizer.init(parameters)
    updates, state = optimizer.update({"a": jnp.ones(3)}, state, parameters)
    assert not np.asarray(updates["a"]).any()
    updates, state = optimizer.update({"a": jnp.ones(3)}, state, parameters)
    np.testing.assert_allclose(updates["a"], -1e-3 / 5, rtol=1e-4)


def test_updates_are_adamw_by_hand():
    """Loshchilov and Hutter's algorithm 2, three steps, in NumPy."""
    config = OptimConfig(
        1e-2, (".*",), warmup_ratio=0.0, weight_decay=0.1, b1=0.8, b2=0.9, eps=1e-6
    )
    optimizer = make_optimizer(config, 10, ["a"])
    rng = np.random.default_rng(0)
    x = rng.standard_normal(5)
    parameters, m, v = {"a": jnp.asarray(x, jnp.float32)}, np.zeros(5), np.zeros(5)
    state = optimizer.init(parameters)
    for step in range(3):
        g = rng.standard_normal(5)
        updates, state = optimizer.update({"a": jnp.asarray(g, jnp.float32)}, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        unbiased = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.9 ** (step + 1))
        rate = 1e-2 * cosine_with_warmup(step, 10, 0.0)
        x = x - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + 1e-6) + 0.1 * x)
        np.testing.assert_allclose(parameters["a"], x, rtol=1e-5)


def test_rates_by_pattern_first_match_wins():
    config = OptimConfig(
        1.0, (".*",), rates=("projector/fc1=0.5", "projector/.*=0.25"), warmup_ratio=0.0, eps=1e-30
    )
    paths = PATHS[:3]
    optimizer = make_optimizer(config, 10**6, paths)
    parameters = {path: jnp.zeros(2) for path in paths}
    gradients = {path: jnp.ones(2) for path in paths}
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    # Adam's first step is the sign of the gradient times the rate.
    found = {path: float(-updates[path][0]) for path in paths}
    expected = {"projector/fc1": 0.5, "projector/fc2": 0.25, "decoder/blocks/q": 1.0}
    assert found == pytest.approx(expected, rel=1e-4)


def test_clipping_is_by_the_norm_of_all_groups_together():
    rates = OptimConfig(1.0, (".*",), rates=("a=0.5",), warmup_ratio=0.0, clip_norm=1.0, b1=0.0)
    optimizer = make_optimizer(rates, 10**6, ["a", "b"])
    parameters = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(parameters)
    _, state = optimizer.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, state, parameters)
    seconds = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (1,)]
    # With b1 = 0 the first moment is the clipped gradient itself: 3/5 and 4/5.
    assert {round(float(leaf[0]), 5) for leaf in seconds} >= {0.6, 0.8}


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five steps of Keller Jordan's quintic on the singular values: what the iteration converges
    to, from an SVD in float64."""
    u, s, v = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


def test_muon_turns_each_layers_gradient_into_an_orthogonal_matrix():
    config = OptimConfig(
        1e-2,
        (".*",),
        rates=("projector/.*=5e-3",),
        warmup_ratio=0.0,
        muon=("decoder/blocks/(q|o)", "projector/fc1"),
    )
    shapes = {
        "decoder/blocks/q": (2, 8, 3, 4),  # layers, embed, heads, head_dim
        "decoder/blocks/o": (2, 3, 4, 8),
        "decoder/embedding": (5, 8),
        "projector/fc1": (6, 8),
        "projector/fc1_bias": (8,),
    }
    rng = np.random.default_rng(0)
    gradients = {path: rng.standard_normal(shape) for path, shape in shapes.items()}
    optimizer = make_optimizer(config, 10, shapes)
    parameters = {path: jnp.zeros(shape) for path, shape in shapes.items()}
    given = {path: jnp.asarray(g, jnp.float32) for path, g in gradients.items()}
    updates, _ = optimizer.update(given, optimizer.init(parameters), parameters)
    matrices = {"decoder/blocks/q": (8, 12), "decoder/blocks/o": (12, 8), "projector/fc1": (6, 8)}
    for path, (rows, columns) in matrices.items():
        rate = 5e-3 if path.startswith("projector") else 1e-2
        expected = [newton_schulz(g) for g in gradients[path].reshape(-1, rows, columns)]
        # The first update of a momentum is along the gradient; 0.2 is AdamW's root mean square.
        scale = -rate * 0.2 * max(rows, columns) ** 0.5
        found = np.asarray(updates[path]).reshape(-1, rows, columns)
        np.testing.assert_allclose(found, scale * np.stack(expected), rtol=1e-3, atol=1e-6)
    for path, rate in (("decoder/embedding", 1e-2), ("projector/fc1_bias", 5e-3)):
        np.testing.assert_allclose(updates[path], -rate * np.sign(gradients[path]), rtol=1e-4)


@pytest.mark.parametrize("pattern", ["decoder/norm/scale", "projector/.*", "decoder/embedding"])
def test_muon_is_for_matrices_alone(pattern):
    paths = [*PATHS, "projector/fc1_bias", "decoder/embedding"]
    with pytest.raises(UserError, match=r"optim\.muon matches '[a-z/0-9_]*', which is no matrix"):
        make_optimizer(OptimConfig(1.0, (".*",), muon=(pattern,)), 10, paths)


def test_unmatched_patterns_are_errors():
    assert trainable_paths(("projector/.*", "decoder/norm/.*"), PATHS) == {
        "projector/fc1",
        "projector/fc2",
        "decoder/norm/scale",
    }
    with pytest.raises(UserError, match=r"optim\.trainable has 'projektor/\.\*'.*matches no"):
        trainable_paths(("projector/.*", "projektor/.*"), PATHS)
    with pytest.raises(UserError, match=r"'projector'.*matches no parameter"):
        trainable_paths(("projector",), PATHS)
    with pytest.raises(UserError, match=r"'\*'.*no regular expression"):
        trainable_paths(("*",), PATHS)
    with pytest.raises(UserError, match=r"optim\.rates has 'tower/\.\*'.*matches no"):
        make_optimizer(OptimConfig(1.0, (".*",), rates=("tower/.*=1e-6",)), 10, PATHS[:3])


@pytest.mark.parametrize("entry", ["projector/.*", "projector/.*=fast"])
def test_malformed_rate(entry):
    with pytest.raises(UserError, match="write it as PATTERN=RATE"):
        make_optimizer(OptimConfig(1.0, (".*",), rates=(entry,)), 10, PATHS)
