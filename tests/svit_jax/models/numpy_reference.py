"""The published architectures in NumPy, float64, one row and one head at a time.

Written from the papers' and model cards' descriptions, with loops in place of einsums: it shares
nothing with `svit_jax.models` but the names and layouts of the parameters.
"""

import math

import numpy as np

from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.vision_tower import VisionConfig

Parameters = dict[str, np.ndarray]


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def rotate_half_rope(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """Hugging Face's: x cos + rotate_half(x) sin, rotate_half(x) = (-second half, first half)."""
    size = len(x)
    angles = np.array([position / theta ** (2 * i / size) for i in range(size // 2)] * 2)
    turned = np.concatenate([-x[size // 2 :], x[: size // 2]])
    return x * np.cos(angles) + turned * np.sin(angles)


def decode(
    p: Parameters, config: DecoderConfig, x: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Final hidden states [T, D] of one causal sequence of embeddings [T, D]."""
    length, group = len(x), config.heads // config.kv_heads
    for layer in range(config.layers):
        w = {name[7:]: p[name][layer] for name in p if name.startswith("blocks/")}
        y = rms_norm(x, w["attention_norm/scale"], config.norm_eps)
        update = np.zeros_like(x)
        for head in range(config.heads):
            kv = head // group
            q, k, v = y @ w["q"][:, head], y @ w["k"][:, kv], y @ w["v"][:, kv]
            q = [rotate_half_rope(q[t], positions[t], config.rope_theta) for t in range(length)]
            k = [rotate_half_rope(k[t], positions[t], config.rope_theta) for t in range(length)]
            for t in range(length):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)]) / math.sqrt(config.head_dim)
                update[t] += softmax(scores) @ v[: t + 1] @ w["o"][head]
        x = x + update
        y = rms_norm(x, w["mlp_norm/scale"], config.norm_eps)
        gate = y @ w["gate"]
        x = x + (gate * sigmoid(gate) * (y @ w["up"])) @ w["down"]
    return rms_norm(x, p["norm/scale"], config.norm_eps)


def see(p: Parameters, config: VisionConfig, picture: np.ndarray) -> np.ndarray:
    """CLIP's features [P, C] of one uint8 picture: the residual stream before the last block, the
    class token dropped."""
    pixels = (picture / 255 - np.array(config.image_mean)) / np.array(config.image_std)
    size, patches = config.patch_size, []
    for top in range(0, config.image_size, size):
        for left in range(0, config.image_size, size):
            patch = pixels[top : top + size, left : left + size]
            patches.append(np.tensordot(patch, p["patch_embedding"], axes=3))
    x = np.stack([p["class_embedding"], *patches]) + p["position_embedding"]
    x = layer_norm(x, p["pre_norm/scale"], p["pre_norm/bias"], config.norm_eps)
    for layer in range(config.layers - 1):
        w = {name[7:]: p[name][layer] for name in p if name.startswith("blocks/")}
        y = layer_norm(x, w["norm1/scale"], w["norm1/bias"], config.norm_eps)
        update = np.zeros_like(x) + w["out_bias"]
        for head in range(config.heads):
            q, k, v = (y @ w[n][:, head] + w[f"{n}_bias"][head] for n in ("q", "k", "v"))
            weights = softmax(q @ k.T / math.sqrt(config.embed / config.heads))
            update += weights @ v @ w["out"][head]
        x = x + update
        y = layer_norm(x, w["norm2/scale"], w["norm2/bias"], config.norm_eps)
        y = y @ w["fc1"] + w["fc1_bias"]
        x = x + y * sigmoid(1.702 * y) @ w["fc2"] + w["fc2_bias"]
    return x[1:]


def project(p: Parameters, features: np.ndarray) -> np.ndarray:
    """Linear, exact GELU (x times the normal distribution function), Linear."""
    y = features @ p["fc1"] + p["fc1_bias"]
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return y @ p["fc2"] + p["fc2_bias"]


def part(parameters: Parameters, prefix: str) -> Parameters:
    """One module's parameters, by their names within it."""
    start = f"{prefix}/"
    return {n.removeprefix(start): v for n, v in parameters.items() if n.startswith(start)}
