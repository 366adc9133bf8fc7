"""The Llama-2 / Vicuna decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Layers are stacked and scanned. Sources: Llama 2 (arXiv 2307.09288); rotate-half RoPE as in the
Hugging Face layout, first half paired with second half.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from svit_jax.models.attention import Backend, Seen, attention
from svit_jax.models.parameters import normal, ones
from svit_jax.models.remat import QKV, Remat, rematerialised
from svit_jax.sharding import shard


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    vocab: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


# Small beside what a block adds (its matrices keep variance), so that what attention finds is heard
# from the first step on: with embeddings of 1, looking things up takes far longer to learn.
EMBEDDING_STDDEV = 0.2
# A new MLP's matrices are this much smaller than variance asks: it all but passes over what comes
# in, until it has learnt something to add. Like the above, only training from scratch sees it.
MLP_GAIN = 0.3


PROJECTIONS = {
    "q": "BTD,DNH->BTNH",
    "k": "BTD,DKH->BTKH",
    "v": "BTD,DKH->BTKH",
    "o": "BTNH,NHD->BTD",
    "gate": "BTD,DF->BTF",
    "up": "BTD,DF->BTF",
    "down": "BTF,FD->BTD",
}
"""A block's matrices, and the product of activations and kernel that each takes part in."""


class Cache(NamedTuple):
    """Keys and values of S positions for each layer; slot s holds position s."""

    k: Float[Array, "L B S K H"]
    v: Float[Array, "L B S K H"]


class RmsNorm(nnx.Module):
    def __init__(self, shape: tuple[int, ...], logical: tuple[str | None, ...], eps: float):
        self.scale = ones(shape, logical)
        self.eps = eps

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """x / rms(x) in float32, cast back, then scaled (the order of Llama's reference)."""
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * self.scale[...].astype(x.dtype)[None, None]


def rotary(
    x: Float[Array, "B T N H"], positions: Int[Array, "B T"], theta: float
) -> Float[Array, "B T N H"]:
    """Rotates pairs (h, h + H/2) by position * theta^(-2h/H); angles in float32."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies.reshape(1, 1, 1, half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


class DecoderBlock(nnx.Module):
    """One layer's computation; its parameters are those of all L layers, stacked in front."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        layers, embed, mlp = config.layers, config.embed, config.mlp
        heads, kv_heads, head_dim = config.heads, config.kv_heads, config.head_dim
        self.config = config
        norm = ((layers, embed), ("layers", "embed"))
        self.attention_norm = RmsNorm(*norm, config.norm_eps)
        self.mlp_norm = RmsNorm(*norm, config.norm_eps)
        std = embed**-0.5
        q_axes = ("layers", "embed", "heads", "head_dim")
        kv_axes = ("layers", "embed", "kv_heads", "head_dim")
        self.q = normal(rngs, (layers, embed, heads, head_dim), q_axes, std)
        self.k = normal(rngs, (layers, embed, kv_heads, head_dim), kv_axes, std)
        self.v = normal(rngs, (layers, embed, kv_heads, head_dim), kv_axes, std)
        o_axes = ("layers", "heads", "head_dim", "embed")
        o_std = (heads * head_dim) ** -0.5
        self.o = normal(rngs, (layers, heads, head_dim, embed), o_axes, o_std)
        up_axes = ("layers", "embed", "mlp")
        self.gate = normal(rngs, (layers, embed, mlp), up_axes, MLP_GAIN * std)
        self.up = normal(rngs, (layers, embed, mlp), up_axes, MLP_GAIN * std)
        down_axes = ("layers", "mlp", "embed")
        self.down = normal(rngs, (layers, mlp, embed), down_axes, MLP_GAIN * mlp**-0.5)

    def project(self, name: str, x: Array, dropout: Key[Array, ""] | None) -> Array:
        """x times one of the kernels, plus what LoRA adds to it where the model has LoRA."""
        y = jnp.einsum(PROJECTIONS[name], x, getattr(self, name)[...].astype(x.dtype))
        lora = getattr(self, f"{name}_lora", None)
        return y if lora is None else y + lora(x, dropout)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        seen: Seen,
        cache: tuple[Array, Array] | None,
        dropout: Key[Array, ""] | None = None,
        backend: Backend = "xla",
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None]:
        y = self.attention_norm(x)
        q, k, v = (self.project(name, y, dropout) for name in ("q", "k", "v"))
        q = rotary(q, positions, self.config.rope_theta)
        k = rotary(k, positions, self.config.rope_theta)
        if cache is not None:
            rows = jnp.arange(x.shape[0])[:, None]
            cache = (cache[0].at[rows, positions].set(k), cache[1].at[rows, positions].set(v))
            k, v = cache
        q = shard(q, "batch", "length", "act_heads", None)
        q, k, v = (checkpoint_name(array, QKV) for array in (q, k, v))
        y = attention(q, k, v, seen, backend)
        x = x + self.project("o", y, dropout)
        y = self.mlp_norm(x)
        gate, up = (self.project(name, y, dropout) for name in ("gate", "up"))
        y = shard(jax.nn.silu(gate) * up, "batch", "length", "act_mlp")
        x = x + self.project("down", y, dropout)
        return shard(x, "batch", "length", "act_embed"), cache


def unembed(kernel: Float[Array, "V D"], hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Float32 logits of final hidden states."""
    kernel = kernel.astype(hidden.dtype)
    logits = jnp.einsum("BTD,VD->BTV", hidden, kernel, preferred_element_type=jnp.float32)
    return shard(logits, "batch", "length", "act_vocab")


class Decoder(nnx.Module):
    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        axes = ("vocab", "embed")
        self.embedding = normal(rngs, (config.vocab, config.embed), axes, EMBEDDING_STDDEV)
        self.blocks = DecoderBlock(config, rngs)
        self.norm = RmsNorm((config.embed,), ("embed",), config.norm_eps)
        self.unembedding = normal(rngs, (config.vocab, config.embed), axes, config.embed**-0.5)

    def embed(self, tokens: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
        # Gathered over the batch's devices, for the reason given in the projector.
        table = shard(self.embedding[...].astype(dtype), "act_vocab", None)
        x = table[tokens]
        return shard(x, "batch", "length", "act_embed")

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        seen: Seen,
        cache: Cache | None = None,
        remat: Remat = "none",
        dropout: Key[Array, ""] | None = None,
        backend: Backend = "xla",
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final hidden states (after the last norm) of embedded tokens, and the grown cache.

        `dropout` is the key of LoRA's dropout; None drops nothing.
        """
        graphdef, parameters = nnx.split(self.blocks)
        keys = None if dropout is None else jax.random.split(dropout, self.config.layers)

        def block(x: Array, layer: tuple[nnx.State, Any, Any]) -> tuple[Array, object]:
            parameters, cache, key = layer
            return nnx.merge(graphdef, parameters)(x, positions, seen, cache, key, backend)

        x, grown = jax.lax.scan(rematerialised(block, remat), x, (parameters, cache, keys))
        return self.norm(x), None if cache is None else Cache(*grown)

    def unembed(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Float32 logits."""
        return unembed(self.unembedding[...], hidden)

    def empty_cache(self, batch: int, slots: int, dtype: jnp.dtype) -> Cache:
        config = self.config
        shape = (config.layers, batch, slots, config.kv_heads, config.head_dim)
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
